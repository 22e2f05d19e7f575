"""Foreign text: never an exception, never without end, in linear time."""

import time

import pytest

from logfan.runtime import foreign_text


class Hostile(Exception):
    """Its text raises, whatever it is asked."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class NoString(Exception):
    """Its text is none."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307 - the fault that is tried


class Own(str):
    """A string whose methods lie."""

    __slots__ = ()

    def __getitem__(self, _: object) -> "Own":
        raise RuntimeError

    def __str__(self) -> str:
        return self


@pytest.mark.parametrize("error", [Hostile(), NoString()])
def test_a_text_that_cannot_be_had_becomes_the_name_of_the_type(error: Exception) -> None:
    name = type(error).__name__
    assert foreign_text.text_of(error) == f"{name} (its text cannot be read)"
    assert (
        foreign_text.line_of(error) == foreign_text.describe(error) == foreign_text.text_of(error)
    )


def test_a_string_of_a_type_of_its_own_is_taken_as_plain_text() -> None:
    assert foreign_text.text_of(Own("abc")) == "abc"
    assert type(foreign_text.text_of(Own("abc"))) is str


class Meta(type):
    """Its classes have no name that one can ask for."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit(4)


class Nameless(Exception, metaclass=Meta):
    """Neither has it attributes."""

    def __getattribute__(self, name: str) -> object:
        raise KeyboardInterrupt

    def __str__(self) -> str:
        return "x" * (10 << 20)


def fail(error: BaseException, depth: int = 0) -> None:
    if depth:
        fail(error, depth - 1)
    raise error


def raised(error: BaseException, depth: int = 0) -> BaseException:
    """The error with a traceback of so many frames more."""
    try:
        fail(error, depth)
    except BaseException as caught:  # noqa: BLE001 - that is what is asked for
        return caught
    raise AssertionError


def test_a_class_may_be_as_hostile_as_it_likes() -> None:
    assert foreign_text.type_name(Nameless()) == "Nameless"
    assert foreign_text.describe(Nameless()).startswith("Nameless: xxx")
    text = foreign_text.traceback_of(raised(Nameless()))
    assert text.startswith("Traceback (most recent call last):\n")
    assert "Nameless: xxx" in text
    assert len(text) <= foreign_text.TRACEBACK_CHARACTERS


def test_a_traceback_shows_what_it_came_from() -> None:
    second = ValueError("second")
    second.__cause__ = raised(KeyError("first"))
    text = foreign_text.traceback_of(raised(second))
    at = [text.index(f"{name}Error: ") for name in ("Key", "Value")]
    assert at[0] < text.index("was the direct cause of") < at[1]
    assert "in fail\n    raise error\nKeyError: 'first'" in text


@pytest.mark.parametrize(
    "error",
    [Hostile(), NoString(), raised(RecursionError("deep"), 900), ValueError("\udcff\n" * 100_000)],
)
def test_a_traceback_never_raises_and_has_a_bound(error: BaseException) -> None:
    last = raised(error)
    for n in range(1000):
        link = ValueError(f"link {n}")
        link.__context__, last = last, link
    for one in (error, last, BaseExceptionGroup("many", [error] * 10_000)):
        text = foreign_text.traceback_of(one)
        assert len(text) <= foreign_text.TRACEBACK_CHARACTERS
        text.encode()


def test_a_text_is_cut_where_it_is_taken() -> None:
    text = foreign_text.text_of(ValueError("x" * (100 << 20)))
    assert len(text) == foreign_text.REASON_CHARACTERS
    assert text.endswith("x…")
    assert len(foreign_text.describe(ValueError("y" * 5000))) == foreign_text.REASON_CHARACTERS
    assert foreign_text.line_of("a\n\n b", 10) == "a b"


def test_a_lone_surrogate_is_escaped() -> None:
    assert foreign_text.describe(ValueError("a\ud800b")) == "ValueError: a\\ud800b"
    foreign_text.text_of("\udcff" * 5000).encode()


def test_an_error_without_a_text_is_its_name() -> None:
    assert foreign_text.describe(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://a:b@h/v", "amqp://***@h/v"),
        ("see amqp://a:p@ss@h and amqps://c:d@e.", "see amqp://***@h and amqps://***@e."),
        ("mail bob@example.org", "mail bob@example.org"),
        ("http://h/a b@c", "http://h/a b@c"),
        ("a@b://c", "a@b://c"),
    ],
)
def test_user_and_password_of_every_url_are_hidden(text: str, masked: str) -> None:
    assert foreign_text.mask(text) == masked


@pytest.mark.parametrize("text", ["://" * 700_000, "://a " * 400_000 + "@", "://" * 700_000 + " @"])
def test_masking_takes_linear_time(text: str) -> None:
    began = time.process_time()
    foreign_text.mask(text)
    assert time.process_time() - began < 2.0
