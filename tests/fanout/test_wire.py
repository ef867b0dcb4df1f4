"""What the types of the contract say of a message, with images or without."""

from orchestration.domain.routing import Target
from orchestration.fanout.client import call_for
from orchestration.fanout.wire import ImagePart, Message, TextPart, check_request
from tests.fanout.asking import fanout

IMAGE = ImagePart(url="https://example.org/a.png")


def test_the_words_of_a_message_are_its_text_without_its_images() -> None:
    assert Message("user", "Why?").text == "Why?"
    assert Message("user", (TextPart("What is "), IMAGE, TextPart("this?"))).text == "What is this?"


def test_a_persona_stands_in_front_of_a_system_message_made_of_parts() -> None:
    target = Target("local/brisk", "local", "m", system="Be brisk.")
    given = (Message("system", (TextPart("Be kind."), IMAGE)), Message("user", "Why?"))
    call = call_for(target, "A", given)
    assert [message.role for message in call.messages] == ["system", "user"]
    assert call.messages[0].content == (TextPart("Be brisk.\n\n"), TextPart("Be kind."), IMAGE)
    check_request(fanout(call))
