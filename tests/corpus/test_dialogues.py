"""The written conversations: enough of them, well formed, nothing in both splits."""

import pytest

from training.corpus.dialogues import SPLITS, parse_line, parse_topics, topics


def sentences(split: str) -> list[str]:
    return [line.text for topic in topics(split) for line in topic.lines]


def test_there_are_a_few_hundred_turns_all_different() -> None:
    everything = sentences("train") + sentences("test")
    assert len(everything) >= 400
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("split", SPLITS)
def test_news_is_marked_and_every_sequel_has_its_news(split: str) -> None:
    news = {topic.name for topic in topics(split) if topic.kind in ("bad", "good")}
    for topic in topics(split):
        assert len(topic.lines) >= 2
        if topic.kind in ("bad", "good"):
            assert sum(line.news for line in topic.lines) == 1
        if topic.kind == "joke":
            assert any(line.punchline for line in topic.lines)
        if topic.kind == "sequel":
            assert topic.name in news


def test_marks_are_read() -> None:
    (topic,) = parse_topics("[bad dog]\nconcerned: You look pale.\nsad#: The dog ran away.")
    assert (topic.kind, topic.name, topic.teller) == ("bad", "dog", 1)
    assert parse_line("happy*: Ha!").punchline
    assert parse_line("surprised!: What?").interrupts


@pytest.mark.parametrize("text", ["merry: Hello.", "happy Hello.", "happy?: Hello."])
def test_other_lines_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dialogue line: got"):
        parse_line(text)
