-- The only statements that change or delete live rows. docs/ownership.md says why they look as they do:
-- `mine` locks the shards of the batch FOR SHARE, in order, if they belong to this boot under the records' epochs, so a
-- take-over waits for this write, and a later write of the old owner finds no row. A plain read would not be checked
-- again after a wait; FOR KEY SHARE would let the epoch change under us; a CTE that nothing refers to would not run.
-- Each row is held against (shard, epoch): a batch may carry records of two epochs of one shard.
-- Numbers and ids come as text (storage/records.py).
-- `IN (SELECT ...) IS TRUE` keeps the test a hashed set; as a plain join it may be planned as a product.
--
-- A row is found by its key and changed by its place, and no statistics can have that planned otherwise (a plan is kept:
-- of a table that was empty when it was made, it would go through all tasks for each record, docs/decisions/0012):
-- LATERAL with LIMIT or OFFSET says what comes first; BETWEEN and ORDER BY leave only the primary key, whose order it
-- is; and with no more than its place to find a row by, there is no index left to go through (a limit that the planner
-- can't know makes it expect few rows, so that looking at each place is cheap beside a scan of all). `rev` is asked
-- again: it has changed if the row has, while this statement waited for it.

-- name: write
-- $1 boot; $2, $3 shards and epochs of the batch.
-- Finish: $4 shard $5 id $6 rev $7 epoch $8 state $9 finish_ms $10 last_day $11 attempt $12 lateness_ms, of the last
-- attempt (all NULL = none): $13 started_ms $14 duration_ms $15 status $16 error; $17 result.
-- Move: $18 shard $19 id $20 rev $21 epoch $22 schedule_ms $23 due_ms $24 attempt $25 budget $26 lateness_ms
-- $27 claim_ms, $28..$31 as $13..$16.
-- Attempts: $32 id $33 tenant $34 attempt $35 fence $36 started_ms $37 duration_ms $38 verdict $39 status $40 error
-- $41 last_day.
-- Answers the ids of the refused ones.
WITH mine AS MATERIALIZED (
    SELECT s.shard, s.epoch
      FROM (SELECT * FROM unnest($2::text::int2[], $3::text::int8[]) AS h (shard, epoch) ORDER BY h.shard) AS h
     CROSS JOIN LATERAL (SELECT s.shard, s.epoch FROM shards s
                          WHERE s.shard = h.shard AND s.epoch = h.epoch AND s.owner_boot = $1
                            FOR SHARE OF s) AS s
), ended AS MATERIALIZED (
    SELECT * FROM unnest($4::text::int2[], $5::text::uuid[], $6::text::int4[], $7::text::int8[], $8::text::int2[],
                         $9::text::int8[], $10::text::int4[], $11::text::int4[], $12::text::int8[], $13::text::int8[],
                         $14::text::int8[], $15::text::int4[], $16::text[], $17::bytea[])
        AS e (shard, id, rev, epoch, state, finish_ms, last_day, attempt, lateness_ms, started_ms, duration_ms, status,
              error, result)
), gone AS (
    DELETE FROM tasks t
     USING (SELECT e.*, r.at
              FROM ended e
             CROSS JOIN LATERAL (SELECT r.ctid AS at FROM tasks r
                                  WHERE r.shard = e.shard AND r.id BETWEEN e.id AND e.id AND r.rev = e.rev
                                  ORDER BY r.id LIMIT 1) AS r
             WHERE ((e.shard, e.epoch) IN (SELECT shard, epoch FROM mine)) IS TRUE
             LIMIT (SELECT count(*) FROM ended)) AS e
     WHERE t.ctid = e.at AND t.rev = e.rev
           -- A claim of the later kind, or of a held task, has moved due_ms ahead: in lists it ended when it ended.
    RETURNING t.schedule_ms, CASE WHEN t.claim_ms IS NULL THEN t.due_ms ELSE least(t.due_ms, e.finish_ms) END AS due_ms,
              t.accept_us,
              -- An attempt that was claimed keeps its fence, whoever owns it when it is claimed again, or ends: what
              -- is said of it again is known by that.
              CASE WHEN t.claim_ms IS NULL THEN e.epoch ELSE t.epoch END AS epoch,
              e.finish_ms, e.last_day, t.queue_id, e.rev + 1 AS rev, e.attempt, t.budget, t.shard, e.state, t.id,
              t.tenant, t.spec, t.labels, t.key_hash,
              CASE WHEN e.state <> 2 THEN t.payload END AS payload, e.lateness_ms,
              CASE WHEN e.started_ms IS NULL THEN t.last_started_ms ELSE e.started_ms END AS last_started_ms,
              CASE WHEN e.started_ms IS NULL THEN t.last_duration_ms ELSE e.duration_ms END AS last_duration_ms,
              CASE WHEN e.started_ms IS NULL THEN t.last_status ELSE e.status END AS last_status,
              CASE WHEN e.started_ms IS NULL THEN t.last_error ELSE e.error END AS last_error, e.result, t.trace
), kept AS (
    INSERT INTO finished (schedule_ms, due_ms, accept_us, epoch, finish_ms, last_day, queue_id, rev, attempt, budget,
                          shard, state, id, tenant, spec, labels, key_hash, payload, lateness_ms, last_started_ms,
                          last_duration_ms, last_status, last_error, result, trace)
    SELECT * FROM gone
), change AS MATERIALIZED (
    SELECT * FROM unnest($18::text::int2[], $19::text::uuid[], $20::text::int4[], $21::text::int8[], $22::text::int8[],
                         $23::text::int8[], $24::text::int4[], $25::text::int4[], $26::text::int8[], $27::text::int8[],
                         $28::text::int8[], $29::text::int8[], $30::text::int4[], $31::text[])
        AS c (shard, id, rev, epoch, schedule_ms, due_ms, attempt, budget, lateness_ms, claim_ms, started_ms,
              duration_ms, status, error)
), moved AS (
    UPDATE tasks t
       SET rev = c.rev + 1,
           epoch = CASE WHEN t.claim_ms IS NULL THEN c.epoch ELSE t.epoch END,
           schedule_ms = c.schedule_ms, due_ms = c.due_ms, attempt = c.attempt,
           budget = c.budget, lateness_ms = c.lateness_ms, claim_ms = c.claim_ms,
           claim_boot = CASE WHEN c.claim_ms IS NOT NULL THEN $1 END,
           last_started_ms = CASE WHEN c.started_ms IS NULL THEN t.last_started_ms ELSE c.started_ms END,
           last_duration_ms = CASE WHEN c.started_ms IS NULL THEN t.last_duration_ms ELSE c.duration_ms END,
           last_status = CASE WHEN c.started_ms IS NULL THEN t.last_status ELSE c.status END,
           last_error = CASE WHEN c.started_ms IS NULL THEN t.last_error ELSE c.error END
      FROM (SELECT c.*, r.at
              FROM change c
             CROSS JOIN LATERAL (SELECT r.ctid AS at FROM tasks r
                                  WHERE r.shard = c.shard AND r.id BETWEEN c.id AND c.id AND r.rev = c.rev
                                  ORDER BY r.id LIMIT 1) AS r
             WHERE ((c.shard, c.epoch) IN (SELECT shard, epoch FROM mine)) IS TRUE
             LIMIT (SELECT count(*) FROM change)) AS c
     WHERE t.ctid = c.at AND t.rev = c.rev
    RETURNING t.id
), done AS MATERIALIZED (
    SELECT id FROM gone UNION ALL SELECT id FROM moved
), logged AS (
    INSERT INTO attempts (id, tenant, attempt, fence, started_ms, duration_ms, verdict, status, error, last_day)
    SELECT * FROM unnest($32::text::uuid[], $33::text[], $34::text::int4[], $35::text[], $36::text::int8[],
                         $37::text::int8[], $38::text[], $39::text::int4[], $40::text[], $41::text::int4[])
               AS a (id, tenant, attempt, fence, started_ms, duration_ms, verdict, status, error, last_day)
     WHERE (a.id IN (SELECT id FROM done)) IS TRUE
)
SELECT u.id::text FROM (SELECT id FROM ended UNION ALL SELECT id FROM change) AS u
 WHERE (u.id IN (SELECT id FROM done)) IS NOT TRUE;

-- name: redrive
-- $1..$3 as above; $4 shard $5 id $6 rev $7 epoch $8 schedule_ms $9 due_ms $10 attempt $11 budget $12 lateness_ms.
-- The row comes back with all it was accepted with. A keyed accept of the same id that is under way keeps it waiting,
-- and then takes its own row back.
WITH mine AS MATERIALIZED (
    SELECT s.shard, s.epoch
      FROM (SELECT * FROM unnest($2::text::int2[], $3::text::int8[]) AS h (shard, epoch) ORDER BY h.shard) AS h
     CROSS JOIN LATERAL (SELECT s.shard, s.epoch FROM shards s
                          WHERE s.shard = h.shard AND s.epoch = h.epoch AND s.owner_boot = $1
                            FOR SHARE OF s) AS s
), change AS MATERIALIZED (
    SELECT * FROM unnest($4::text::int2[], $5::text::uuid[], $6::text::int4[], $7::text::int8[], $8::text::int8[],
                         $9::text::int8[], $10::text::int4[], $11::text::int4[], $12::text::int8[])
        AS c (shard, id, rev, epoch, schedule_ms, due_ms, attempt, budget, lateness_ms)
), gone AS (
    DELETE FROM finished f
     USING (SELECT c.*, r.last_day, r.at
              FROM change c
             CROSS JOIN LATERAL (SELECT r.last_day, r.ctid AS at FROM finished r
                                  WHERE r.id = c.id AND r.shard = c.shard AND r.rev = c.rev OFFSET 0) AS r
             WHERE ((c.shard, c.epoch) IN (SELECT shard, epoch FROM mine)) IS TRUE
             LIMIT (SELECT count(*) FROM change)) AS c
     WHERE f.last_day = c.last_day AND f.ctid = c.at AND f.rev = c.rev
    RETURNING c.schedule_ms, c.due_ms, f.accept_us, c.epoch, f.queue_id, c.rev + 1 AS rev, c.attempt, c.budget, f.shard,
              f.id, f.tenant, f.spec, f.labels, f.key_hash, f.payload, c.lateness_ms, f.last_started_ms,
              f.last_duration_ms, f.last_status, f.last_error, f.trace
), back AS (
    INSERT INTO tasks (schedule_ms, due_ms, accept_us, epoch, queue_id, rev, attempt, budget, shard, id, tenant, spec,
                       labels, key_hash, payload, lateness_ms, last_started_ms, last_duration_ms, last_status,
                       last_error, trace)
    SELECT * FROM gone
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT c.id::text FROM change c WHERE (c.id IN (SELECT id FROM back)) IS NOT TRUE;
