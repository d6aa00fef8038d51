"""This is where a transcript becomes a sentence about the avatar's due emotion: the language model
Psi of LCU's Linguistic-driven Affective Understanding (ECHO, Fig. 2).

Emotion enters ECHO as text, not as a class. Any `AffectModel` may write that text: the built-in
`ReaderAffect` and `LexiconAffect` need no download, `TransformersAffect` runs a local model,
`OpenAIAffect` asks an endpoint that speaks the chat-completions protocol. All answer in the form of
`sentence`, the form that the text encoder was trained on; `word_ids` turns it into the encoder's
input.
"""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from visavis import reader
from visavis.config import AffectConfig
from visavis.reader import NEGATIONS, words_of

ROLES = ("user", "avatar")
EMOTIONS = ("neutral", "happy", "excited", "sad", "concerned", "surprised", "angry", "calm")


class AffectError(RuntimeError):
    """The language model could not be asked, or did not name an emotion.

    It is logged, so it quotes neither the transcript nor the model, which may repeat that.
    """


@dataclass(frozen=True)
class Turn:
    """One utterance: `role` is "user" or "avatar", `start_s` counts from the beginning."""

    role: str
    text: str
    start_s: float


class AffectModel(Protocol):
    """Psi."""

    def describe(self, history: Sequence[Turn]) -> str:
        """The avatar's due emotion after `history` (oldest first), as `sentence` puts it."""
        ...


def sentence(emotions: Sequence[str]) -> str:
    """The strongest emotion and, if there is one, the next: "… primarily happy and a little calm."

    An empty sequence is neutral. All of `EMOTIONS` may be named.
    """
    first, *others = emotions or ("neutral",)
    tail = f" and a little {others[0]}" if others else ""
    return f"The avatar is primarily {first}{tail}."


def word_ids(text: str, config: AffectConfig) -> np.ndarray:
    """Hashed words of `text` -> (max_words,) int64, in [1, vocabulary); 0 is padding.

    The hash is the same on every machine and in every run, as trained weights depend on it.
    """
    ids = np.zeros(config.max_words, np.int64)
    for place, word in enumerate(words_of(text)[: config.max_words]):
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        ids[place] = 1 + int.from_bytes(digest, "little") % (config.vocabulary - 1)
    return ids


LEXICON: dict[str, str] = {
    "happy": """happy glad great good wonderful lovely nice love loved enjoy enjoyed fun funny smile
        laugh laughed laughing pleased delighted thanks thank best beautiful perfect proud haha""",
    "excited": """excited exciting awesome amazing fantastic incredible thrilled won win celebrate
        wedding birthday promotion promoted holiday yay hooray crazy let's cheers
        congratulations""",
    "sad": """sad unhappy cry cried crying lonely miss missed lost lose died dead death funeral
        passed grief hurt heartbroken depressed failed fail bad terrible awful horrible fired sick
        ill cancer hospital accident divorce unfortunately worse worst tragic""",
    "concerned": """worried worry worrying nervous anxious afraid scared fear stress stressed
        concern concerned careful danger dangerous problem trouble pain sorry difficult hard""",
    "surprised": """wow surprised surprise surprising unbelievable suddenly unexpected whoa omg
        seriously shocked""",
    "angry": """angry furious mad annoyed annoying hate hated unfair stupid rude outrageous
        disgusting frustrated frustrating""",
    "calm": """calm relax relaxed relaxing peaceful quiet slowly gentle rest okay alright fine
        breathe settled""",
}
EMOTION_OF = {word: emotion for emotion, words in LEXICON.items() for word in words.split()}

# What the avatar should feel when the user shows an emotion: it shares joy, answers bad news with
# concern, and does not answer anger with anger.
EMPATHY: dict[str, dict[str, float]] = {
    "happy": {"happy": 1.0},
    "excited": {"excited": 1.0, "happy": 0.6},
    "sad": {"concerned": 1.0, "sad": 0.6},
    "concerned": {"concerned": 1.0, "calm": 0.4},
    "surprised": {"surprised": 1.0},
    "angry": {"concerned": 1.0, "calm": 0.6},
    "calm": {"calm": 1.0},
}
# "not happy" is half a way to sad, "not worried" half a way to calm.
OPPOSITE = {
    "happy": "sad",
    "excited": "calm",
    "sad": "calm",
    "concerned": "calm",
    "surprised": "calm",
    "angry": "calm",
    "calm": "concerned",
}
INTENSIFIERS = frozenset(["very", "really", "so", "too", "extremely", "totally", "absolutely"])
NEGATION_REACH = 3  # words


class TurnByTurn:
    """Reads what every turn shows; what was felt fades with every new turn.

    Args:
        shown: tells how strongly a text shows emotions; neutral is the absence of all.
        decay: the share of a feeling that is left one turn later.
        threshold: what an emotion must reach to be named.
    """

    def __init__(self, shown: Callable[[str], Mapping[str, float]], decay: float, threshold: float):
        self.shown = shown
        self.decay = decay
        self.threshold = threshold

    def describe(self, history: Sequence[Turn]) -> str:
        felt: dict[str, float] = dict.fromkeys(EMOTIONS, 0.0)
        for turn in history:
            shown = self.shown(turn.text)
            due = shown if turn.role == "avatar" else _empathy(shown)
            for emotion in felt:
                felt[emotion] = self.decay * felt[emotion] + due.get(emotion, 0.0)
        named = [emotion for emotion in EMOTIONS if felt[emotion] >= self.threshold]
        return sentence(sorted(named, key=lambda emotion: -felt[emotion])[:2])


class LexiconAffect(TurnByTurn):
    """Knows some hundred emotion words, and nothing else."""

    def __init__(self, decay: float = 0.6, threshold: float = 0.3):
        super().__init__(words_shown, decay, threshold)


class ReaderAffect(TurnByTurn):
    """The built-in default: a small classifier reads what is said (`visavis.reader`)."""

    def __init__(self, decay: float = 0.2, threshold: float = 0.25):
        reader.built_in()  # now, and not while somebody waits for a block
        super().__init__(read_shown, decay, threshold)


def read_shown(text: str) -> dict[str, float]:
    """How likely the reader finds every emotion that `text` may show; none if it is neutral."""
    found = reader.built_in()(text)
    neutral = found.pop("neutral")
    return {} if neutral >= max(found.values()) else found


def words_shown(text: str) -> dict[str, float]:
    """The emotions that the words of `text` show, by strength."""
    words = words_of(text)
    emphasis = 1.0 + 0.3 * min(text.count("!"), 3)
    shown: dict[str, float] = {}
    for place, word in enumerate(words):
        if word not in EMOTION_OF:
            continue
        before = words[max(0, place - NEGATION_REACH) : place]
        emotion, strength = EMOTION_OF[word], emphasis
        if any(earlier in NEGATIONS or earlier.endswith("n't") for earlier in before):
            emotion, strength = OPPOSITE[emotion], 0.5 * strength
        if before and before[-1] in INTENSIFIERS:
            strength *= 1.5
        shown[emotion] = shown.get(emotion, 0.0) + strength
    return shown


def _empathy(shown: Mapping[str, float]) -> dict[str, float]:
    due: dict[str, float] = {}
    for emotion, strength in shown.items():
        for answer, share in EMPATHY[emotion].items():
            due[answer] = due.get(answer, 0.0) + share * strength
    return due


BUILT_IN = {"reader": ReaderAffect, "lexicon": LexiconAffect}

PROMPT = (
    "You read a conversation between a user and an avatar and say which emotion the avatar should "
    f"show now. Use only these words: {', '.join(EMOTIONS)}. Answer with one sentence of the form "
    '"The avatar is primarily happy and a little excited." and nothing else.'
)


def _messages(history: Sequence[Turn]) -> list[dict[str, str]]:
    lines = "\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in history)
    return [
        {"role": "system", "content": PROMPT},
        {"role": "user", "content": lines or "(nothing has been said yet)"},
    ]


def _named(reply: str, model: str) -> str:
    """`reply` in the form of `sentence`, from the emotions that it names, in their order."""
    named = [word for word in words_of(reply) if word in EMOTIONS]
    if not named:
        raise AffectError(
            f"{model}: got an answer of {len(reply)} characters, expected one that names some of "
            f"{', '.join(EMOTIONS)}; use a model that follows instructions"
        )
    return sentence(list(dict.fromkeys(named))[:2])


class TransformersAffect:
    """A causal language model with a chat template, from a local folder (needs transformers)."""

    def __init__(self, path: str, max_new_tokens: int = 32):
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise AffectError(
                "transformers: got no such package, expected it for a local language model; "
                "pip install transformers torch, or use the built-in lexicon"
            ) from error
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            self.model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise AffectError(
                f"{path}: got {error}, expected the folder of a causal language model; download "
                "one and give its folder"
            ) from error
        self.path = path
        self.max_new_tokens = max_new_tokens

    def describe(self, history: Sequence[Turn]) -> str:
        inputs = self.tokenizer.apply_chat_template(
            _messages(history), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False
        )  # greedy, so that a run repeats
        prompt_length = inputs["input_ids"].shape[1]
        reply = self.tokenizer.decode(output[0, prompt_length:], skip_special_tokens=True)
        return _named(reply, self.path)


class OpenAIAffect:
    """A model behind an endpoint that speaks the chat-completions protocol.

    Args:
        base_url: up to and without `/chat/completions`, such as "http://localhost:11434/v1".
        model: its name there.
        api_key: sent as a bearer token when given.
        timeout_s: how long one answer may take; a block of frames waits for it.
    """

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, timeout_s: float = 5.0
    ):
        self.url = f"{base_url.rstrip('/')}/chat/completions"
        self.model = model
        self.api_key = api_key
        self.timeout_s = timeout_s

    def describe(self, history: Sequence[Turn]) -> str:
        body = {"model": self.model, "messages": _messages(history), "temperature": 0}
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                reply = json.load(response)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            raise AffectError(
                f"{self.url}: got HTTP {error.code} {error.reason}, expected a chat completion; "
                "check the model's name and the key"
            ) from error
        except OSError as error:  # refused, unreachable, or too slow
            raise AffectError(
                f"{self.url}: got {error}, expected an answer within {self.timeout_s} s; "
                "start the endpoint or raise the timeout"
            ) from error
        except (ValueError, LookupError, TypeError) as error:
            raise AffectError(
                f"{self.url}: got a reply that is no chat completion ({type(error).__name__}), "
                "expected choices[0].message.content; check the base address"
            ) from error
        return _named(str(reply), self.model)


def load(spec: str, api_key: str | None = None) -> AffectModel:
    """The model that `spec` names.

    That is "reader", "lexicon", "transformers:PATH" or "openai:MODEL@BASE_URL".
    """
    kind, _, rest = spec.partition(":")
    model, _, base_url = rest.partition("@")
    if kind in BUILT_IN and not rest:
        return BUILT_IN[kind]()
    if kind == "transformers" and rest:
        return TransformersAffect(rest)
    if kind == "openai" and model and base_url:
        return OpenAIAffect(base_url, model, api_key)
    raise ValueError(
        f'affect: got {spec!r}, expected "reader", "lexicon", "transformers:PATH" or '
        '"openai:MODEL@BASE_URL"; give one of these'
    )
