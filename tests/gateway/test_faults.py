"""What is said of bytes that are no JSON, or not the JSON that was expected."""

import msgspec
import pytest

from actors.core.errors import Invalid
from gateway.faults import decoded
from gateway.problems import Problem
from gateway.schema import TaskRequest

DECODER = msgspec.json.Decoder(TaskRequest)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected JSON, but there is nothing"),
        (b" \n", "expected JSON, but there is nothing"),
        (b'{"delay":1', "the JSON ends too early, at byte 10"),
        (b'{"payload":"\\ud83d\\ude00', "the JSON ends too early, at byte 24"),
        (b'{"payload":"\\\\ud800', "the JSON ends too early, at byte 19"),
        (b'{"payload":"\\ud800"}', "half a surrogate pair, which is no text, at byte 12"),
        (b'{"payload":"\\\\\\ud800x"}', "half a surrogate pair, which is no text, at byte 14"),
        (b'{"payload":"\\ud83d\\ude00\\uDC00"}', "half a surrogate pair, which is no text, at byte 24"),
        (b'{"labels":{"\\ud800":"x"}}', "half a surrogate pair, which is no text, at byte 12"),
        (b"hello", "JSON is malformed: invalid character at byte 0"),
        (b'{"queue":"\xff"}', "the text is not UTF-8"),
    ],
)
def test_what_is_no_json_is_said_in_words(data: bytes, words: str) -> None:
    with pytest.raises(Problem) as caught:
        decoded(DECODER, data)
    assert (caught.value.kind, caught.value.detail, caught.value.pointer) == ("not-json", words, "")


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (b'{"labels":{"a":"x","b/c":1}}', "/labels/b~1c"),
        (b'{"labels":{"a":null},"more":"\xff"}', "/labels"),
        (b'{"labels":{"a":1,"a":"x"}}', "/labels"),
        (b'{"labels":[]}', "/labels"),
    ],
)
def test_the_key_of_a_value_that_is_no_text_is_pointed_at(data: bytes, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        decoded(DECODER, data)
    assert caught.value.pointer == pointer
