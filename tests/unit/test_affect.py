"""The language models that say what the avatar should feel, and the hash of their words."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from visavis import affect
from visavis.affect import (
    EMOTIONS,
    AffectError,
    LexiconAffect,
    OpenAIAffect,
    ReaderAffect,
    Turn,
    sentence,
)
from visavis.config import AffectConfig


def describe(*turns: str) -> str:
    """Turns written as "user: text"."""
    split = (turn.split(": ", 1) for turn in turns)
    return LexiconAffect().describe([Turn(role, text, 0.0) for role, text in split])


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([], ["neutral"]),
        (["user: The meeting is at five."], ["neutral"]),
        (["avatar: I am so happy!"], ["happy"]),
        (["user: We won! This is amazing!"], ["excited", "happy"]),
        (["user: My grandmother died yesterday."], ["concerned", "sad"]),
        (["user: I hate this, it is so unfair!"], ["concerned", "calm"]),
        (["avatar: I am not happy about it."], ["sad"]),
        (["user: I don't feel sad any more."], ["calm"]),
        (["avatar: That's great!", "user: I lost my job."], ["concerned", "happy"]),
        (["user: Wow, really?"], ["surprised"]),
    ],
)
def test_lexicon_reads_a_transcript(turns, expected):
    assert describe(*turns) == sentence(expected)


def test_the_reader_knows_what_is_due_to_whom():
    told = "My grandmother died last night."
    due = {role: ReaderAffect().describe([Turn(role, told, 0.0)]) for role in ("avatar", "user")}
    assert due["avatar"].startswith(sentence(["sad"]).rstrip("."))
    assert due["user"].startswith(sentence(["concerned"]).rstrip("."))
    assert ReaderAffect().describe([]) == sentence(["neutral"])


def test_feelings_fade():
    history = ["user: What a wonderful day!", *["user: And then we drove on."] * 8]
    assert describe(*history) == sentence(["neutral"])


def test_every_emotion_can_be_said_and_is_told_apart():
    config = AffectConfig()
    ids = {tuple(affect.word_ids(sentence([word]), config)) for word in EMOTIONS}
    assert len(ids) == len(EMOTIONS)


def test_word_ids_are_stable_and_padded():
    config = AffectConfig()
    ids = affect.word_ids("The avatar is primarily HAPPY.", config)
    assert ids.shape == (config.max_words,)
    assert ids.dtype == np.int64
    assert ids[:5].tolist() == [3391, 1478, 1530, 2979, 551]  # trained weights depend on these
    assert not ids[5:].any()
    assert (affect.word_ids("word " * 100, config) != 0).all()


class Endpoint(BaseHTTPRequestHandler):
    """A chat-completions endpoint; the model's name says what goes wrong."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Endpoint.asked = body, self.headers["Authorization"]
        if body["model"] == "absent":
            self.send_error(404, "no such model")
            return
        content = {"mute": "As a language model, I cannot say.", "odd": None}.get(
            body["model"], "The avatar is happy, and somewhat EXCITED."
        )
        reply = {"choices": [{"message": {"content": content}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([] if body["model"] == "odd" else reply).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def endpoint():
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_answers_in_the_trained_form(endpoint):
    model = OpenAIAffect(endpoint, "small", api_key="secret")
    answer = model.describe([Turn("user", "Hello!", 0.0), Turn("avatar", "Hi.", 1.0)])
    assert answer == sentence(["happy", "excited"])
    body, authorization = Endpoint.asked
    assert body["messages"][1]["content"] == "User: Hello!\nAvatar: Hi."
    assert authorization == "Bearer secret"


@pytest.mark.parametrize(
    ("model", "message"),
    [("absent", "HTTP 404"), ("mute", "an answer of 34 characters"), ("odd", "no chat completion")],
)
def test_an_endpoint_that_fails_is_named(endpoint, model, message):
    with pytest.raises(AffectError, match=message):
        OpenAIAffect(endpoint, model).describe([])


def test_an_endpoint_that_is_not_there_is_named():
    with pytest.raises(AffectError, match="start the endpoint"):
        OpenAIAffect("http://127.0.0.1:9", "small").describe([])


def test_models_are_named_by_a_string():
    assert isinstance(affect.load("lexicon"), LexiconAffect)
    assert isinstance(affect.load("reader"), ReaderAffect)
    remote = affect.load("openai:llama3@http://localhost:11434/v1")
    assert isinstance(remote, OpenAIAffect)
    assert (remote.model, remote.url) == (
        "llama3",
        "http://localhost:11434/v1/chat/completions",
    )
    for spec in ("", "gpt", "openai:llama3", "transformers:"):
        with pytest.raises(ValueError, match="lexicon"):
            affect.load(spec)


def test_a_local_model_is_asked_through_its_chat_template(tmp_path):
    """A random one answers nonsense, which is refused by name."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: place for place, word in enumerate(["<unk>", "User", "Avatar", "hello", "yes"])}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>")),
        unk_token="<unk>",
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )
    tokenizer.save_pretrained(tmp_path)
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
        )
    ).save_pretrained(tmp_path)
    model = affect.load(f"transformers:{tmp_path}")
    with pytest.raises(AffectError, match="expected one that names some of neutral"):
        model.describe([Turn("user", "hello", 0.0)])
    with pytest.raises(AffectError, match="the folder of a causal language model"):
        affect.load(f"transformers:{tmp_path / 'nowhere'}")
