"""YAML documents, with the place of everything in them. Text in, nodes out; no file is opened.

What is written is what is read. YAML 1.1 turns ``on`` into true, ``1:30`` into 90 and ``010`` into 8;
here a scalar stays the text that it is, and ``fields`` converts it to what its key asks for. Anchors,
aliases, tags and merge keys are refused: no file of ours needs them, and a few lines of them can
stand for gigabytes.

::

    ArtesianError
    └── DocumentError        a file with mistakes: all of them, in the order of lines
        ├── JobFileError     (jobfile)
        └── FleetFileError   (sim.fleet)
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from artesian.model.errors import ArtesianError

if TYPE_CHECKING:
    import yaml

    _Take = Callable[[], yaml.Event]

MAX_BYTES = 2**20
"""Largest document, in bytes of UTF-8."""
MAX_NODES = 20_000
MAX_DEPTH = 16

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n"})
_SHOWN = 60


class Position(Struct, frozen=True, order=True, gc=False):
    """A place in a document; lines and columns count from 1."""

    line: int
    column: int


class Mistake(Struct, frozen=True, kw_only=True, gc=False):
    """Something wrong with a document: where, with what, what was expected and what came."""

    at: Position
    subject: str
    text: str
    hint: str | None = None


class DocumentError(ArtesianError):
    """A document with mistakes. ``mistakes`` has every one of them, in the order of lines."""

    def __init__(self, source: str, mistakes: Iterable[Mistake]) -> None:
        self.source = source
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.at))
        if len(self.mistakes) == 1:
            super().__init__(self._line(self.mistakes[0]), hint=self.mistakes[0].hint)
            return
        lines = []
        for mistake in self.mistakes:
            lines.append(self._line(mistake))
            if mistake.hint is not None:
                lines.append(f"    hint: {mistake.hint}")
        super().__init__("\n".join(lines), hint="nothing was taken from the file; mend all of these first")

    def _line(self, mistake: Mistake) -> str:
        where = f"{self.source}:{mistake.at.line}:{mistake.at.column}"
        return f"{where}: {mistake.subject}: {mistake.text}"


class Scalar(Struct, frozen=True, kw_only=True, gc=False):
    """One value, as its text. ``is_plain``: it stands without quotes."""

    at: Position
    text: str
    is_plain: bool

    @property
    def is_null(self) -> bool:
        """Whether nothing is written here, or YAML's word for it."""
        return self.is_plain and self.text in _NULLS

    @property
    def is_boolean(self) -> bool:
        """Whether some YAML reader would take it for true or false."""
        return self.is_plain and self.text.lower() in _BOOLEANS


class List(Struct, frozen=True, kw_only=True, gc=False):
    """Nodes one after the other."""

    at: Position
    items: tuple["Node", ...]


class Mapping(Struct, frozen=True, kw_only=True, gc=False):
    """Keys and values in the order of the document; a key may occur twice."""

    at: Position
    entries: tuple[tuple["Node", "Node"], ...]


class Broken(Struct, frozen=True, kw_only=True, gc=False):
    """Something that is a mistake already; nothing more is to be said about it."""

    at: Position


Node = Scalar | List | Mapping | Broken


def describe(node: Node) -> str:
    """Return what ``node`` is, in words for an error: its exact text, cut where it is long."""
    match node:
        case Scalar():
            if node.is_null:
                return "nothing" if not node.text else f"nothing ({node.text})"
            return repr(node.text if len(node.text) <= _SHOWN else node.text[: _SHOWN - 1] + "…")
        case List():
            return f"a list of {len(node.items)}" if node.items else "an empty list"
        case Mapping():
            return f"a mapping of {len(node.entries)}" if node.entries else "an empty mapping"
        case Broken():
            return "a mistake"


def compose(text: str, *, what: str, hint: str) -> tuple[Node, list[Mistake]]:
    """Return the only document in ``text``, and what is wrong with it as YAML.

    ``what`` names the kind of document ("a job"); ``hint`` shows the least that one has. The node is
    Broken when there is no document to go on with; there is a mistake then.
    """
    start = Position(1, 1)
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_BYTES:
        too_large = Mistake(
            at=start,
            subject="file",
            text=f"expected {what} of at most {MAX_BYTES} bytes, got {size_bytes}",
            hint="put data into files of its own, and name them here",
        )
        return Broken(at=start), [too_large]
    composer = _Composer(text.removeprefix("\ufeff"))
    root = composer.document()
    if root is None:
        composer.note(start, "file", f"expected {what}, got an empty file", hint)
    return root or Broken(at=start), composer.mistakes


class _Stop(Exception):  # noqa: N818 - no error: the mistake is noted, and reading on makes no sense
    pass


class _Composer:
    """Builds nodes from the events of PyYAML's parser, which resolves and constructs nothing."""

    def __init__(self, text: str) -> None:
        self.mistakes: list[Mistake] = []
        self._text = text
        self._nodes = 0

    def note(self, at: Position, subject: str, text: str, hint: str | None = None) -> None:
        self.mistakes.append(Mistake(at=at, subject=subject, text=text, hint=hint))

    def document(self) -> Node | None:
        """Return the root; None when there is none, Broken when it cannot be read to its end."""
        import yaml

        loader: yaml.SafeLoader | None = None
        broken = Broken(at=Position(1, 1))
        try:
            loader = yaml.SafeLoader(self._text)
            return self._document(loader)
        except _Stop:
            return broken
        except yaml.reader.ReaderError as error:
            self._note_character(error.position, str(error.reason))
        except yaml.MarkedYAMLError as error:
            self._note_syntax(error)
        except (ValueError, OverflowError):
            # PyYAML lets these out of escapes such as "\UFFFFFFFF" and of endless version numbers.
            assert loader is not None
            at = _position(loader.get_mark())
            self.note(at, "yaml", "expected the code of a character or a version, got a number out of range")
        return broken

    def _document(self, loader: "yaml.SafeLoader") -> Node | None:
        import yaml

        take: _Take = loader.get_event
        root: Node | None = None
        documents = 0
        while loader.check_event():
            event = take()
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    at = _position(event.start_mark)
                    self.note(
                        at,
                        "yaml",
                        "expected one document, got the start of a second one",
                        "one file each; a line of --- starts a new document",
                    )
                    raise _Stop
                root = self._node(take(), take, depth=1)
        return root

    def _node(self, event: "yaml.Event", take: "_Take", depth: int) -> Node:
        import yaml

        at = _position(event.start_mark)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self.note(at, "yaml", f"expected at most {MAX_NODES} keys and values, got more")
            raise _Stop
        if depth > MAX_DEPTH:
            self.note(at, "yaml", f"expected at most {MAX_DEPTH} levels, got more")
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            self.note(at, "yaml", f"expected a value, got the alias *{event.anchor}", "write the value out")
            return Broken(at=at)
        assert isinstance(event, yaml.NodeEvent)
        self._note_decoration(at, event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(at, event)
        children: list[Node] = []
        end = yaml.MappingEndEvent if isinstance(event, yaml.MappingStartEvent) else yaml.SequenceEndEvent
        while not isinstance(child := take(), end):
            children.append(self._node(child, take, depth + 1))
        if end is yaml.SequenceEndEvent:
            return List(at=at, items=tuple(children))
        return Mapping(at=at, entries=tuple(zip(children[::2], children[1::2], strict=True)))

    def _scalar(self, at: Position, event: "yaml.ScalarEvent") -> Node:
        bad = next((c for c in event.value if c == "\0" or "\ud800" <= c <= "\udfff"), None)
        if bad is not None:
            self.note(at, "yaml", f"expected text, got the character {bad!r} in it")
            return Broken(at=at)
        return Scalar(at=at, text=event.value, is_plain=event.style is None)

    def _note_decoration(self, at: Position, event: "yaml.NodeEvent") -> None:
        if event.anchor is not None:
            self.note(at, "yaml", f"expected a value, got the anchor &{event.anchor}", "write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.note(at, "yaml", f"expected a value, got the tag {tag!r}", "quote what is meant as text")

    def _note_character(self, index: int, reason: str) -> None:
        before = self._text[:index]
        at = Position(before.count("\n") + 1, index - before.rfind("\n"))
        self.note(at, "yaml", f"expected text, got the character {self._text[index]!r}: {reason}")

    def _note_syntax(self, error: "yaml.MarkedYAMLError") -> None:
        at = _position(error.problem_mark or error.context_mark)
        lines = self._text.split("\n")
        line = lines[at.line - 1] if at.line <= len(lines) else ""
        hint = None
        if "\t" in line:
            hint = "indent with spaces: YAML does not take tabs there"
        elif ": " in line.partition(": ")[2]:
            hint = "quote a text that has a colon and a space in it"
        context = f"{error.context}, " if error.context else ""
        if error.context_mark is not None and error.context_mark.line + 1 != at.line:
            context = f"{error.context} from line {error.context_mark.line + 1}, "
        self.note(at, "yaml", f"{context}{error.problem or 'this is not YAML'}", hint)


def _position(mark: "yaml.error.Mark | yaml._yaml.Mark | None") -> Position:
    assert mark is not None
    return Position(mark.line + 1, mark.column + 1)
