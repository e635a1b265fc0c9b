"""Memory and PostgreSQL, taking the same random steps, give the same answers."""

from hypothesis import given, settings

from tests.actors.ports.draws import STEPS
from tests.actors.ports.postgres_world import open_postgres_world
from tests.actors.ports.steps import BOOTS, NUMBERS, QUEUES, SHARDS, Guards, Side, Step
from tests.actors.ports.worlds import MemoryWorld, World, own_all
from tests.support.builders import T0_DAY, keyed


async def side_of(world: World) -> Side:
    """A world in which the first boot owns every shard, and every task is live."""
    stores = await world.process(BOOTS[0])
    queues = [await stores.queues.ensure(tenant, name) for tenant, name in QUEUES]
    await own_all(stores, BOOTS[0])
    for boot in BOOTS[1:]:
        await stores.leases.join(boot, boot, "there:7070")
    await stores.housekeeping.make_partitions(T0_DAY, T0_DAY + 8)
    tasks = [keyed(number, queues[number % 3], shard=number % len(SHARDS)) for number in NUMBERS]
    assert all(not isinstance(answer, Exception) for answer in await stores.tasks.accept_keyed(tasks))
    return Side(stores, queues)


def told(answer: object) -> object:
    """The answer; of errors only their kind."""
    if isinstance(answer, Exception):
        return type(answer)
    if isinstance(answer, list):
        return [told(one) for one in answer]
    if isinstance(answer, dict):
        return {key: told(one) for key, one in answer.items()}
    return answer


@given(steps=STEPS)
@settings(max_examples=25, derandomize=True)
async def test_the_same_steps_give_the_same_answers(contract_dsn: str, steps: list[Step]) -> None:
    twin = MemoryWorld()
    async with open_postgres_world(contract_dsn) as world:
        memory, postgres = await side_of(twin), await side_of(world)
        for step in steps:
            guards = Guards(twin.database)
            assert told(await step.take(memory, guards)) == told(await step.take(postgres, guards)), step
