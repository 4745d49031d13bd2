"""The words of one conversation's archived turns, searchable: SQLite's FTS5 in process memory.

FTS5 keeps which turn has which word (contentless and without positions, `detail=none`), stems English and
takes turns away again; the passages stand beside it in a table. What a match is worth is decided in `recall`.
FTS5's own `bm25()` is not used: it scores every row that has any of the words (8 ms for 32 words at 10,000
turns, where reading their postings takes 0.5), and its scores depend on the archive's size. Searching uses no
query syntax: words reach SQLite as parameters only.

One lock per index: SQLite runs without the interpreter's lock, so building and searching belong into threads.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from history.passage import Passage
from history.recall import Corpus, Found, RecallRule, Sentence, Term, Wanted, cleared, fitted, wanted
from history.words import words

# `ascii` takes every character that is not ASCII as part of a word: what `words` found stays one word.
_TOKENIZE = "tokenize='porter ascii'"
_SCHEMA = f"""
    CREATE TABLE turns(position INTEGER PRIMARY KEY, words INTEGER NOT NULL, passage BLOB NOT NULL);
    CREATE VIRTUAL TABLE said USING fts5(body, content='', detail=none, {_TOKENIZE});
    CREATE VIRTUAL TABLE said_words USING fts5vocab(said, row);
    CREATE VIRTUAL TABLE said_postings USING fts5vocab(said, instance);
    CREATE VIRTUAL TABLE asked USING fts5(body, content='', {_TOKENIZE});
    CREATE VIRTUAL TABLE asked_postings USING fts5vocab(asked, instance);
"""
_TERMS = """
    SELECT a.offset, a.term, coalesce((SELECT w.doc FROM said_words w WHERE w.term = a.term), 0)
    FROM asked_postings a
"""
_POSTINGS = "SELECT doc FROM said_postings WHERE term = ? AND doc < ?"
_BATCH = 500

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Passage).decode


class RecallIndex:
    """Turns `start` to `stop` of one conversation. Every method may be called from any thread.

    `stop` and `size` may be read without waiting for a method that runs.
    """

    def __init__(self, *, start: int = 0) -> None:
        self.start = start
        self.stop = start
        self.size = 0
        """Bytes that SQLite holds for it."""
        self._words = 0
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)
        self._measure()

    def add(self, passages: Sequence[Passage], *, max_turns: int) -> None:
        """Add the turns from `stop` on; those it has already are passed over.

        The oldest beyond `max_turns` go. Raises `ValueError` if a turn is missing between.
        """
        with self._lock:
            new = [passage for passage in passages if passage.position >= self.stop]
            for at in range(0, len(new), _BATCH):
                self._insert(new[at : at + _BATCH])
            if self.stop - self.start > max_turns:
                self._remove_before(self.stop - max_turns)
            self._measure()

    def search(self, asked: Sequence[Sentence], rule: RecallRule, *, cut: int) -> tuple[Passage, ...]:
        """The passages before the cut that the sentences refer to, in the order they were said."""
        with self._lock:
            corpus = Corpus(turns=self.stop - self.start, words=self._words)
            sought = wanted(asked, self._terms(asked), corpus)
            matches = cleared(sought, self._postings(sought, cut), rule)
            found = self._found([match.position for match in matches])
        return fitted(matches, found, sought, rule, cut=cut)

    def close(self) -> None:
        """Give the memory back; waits for a method that runs. The index is of no use afterwards."""
        with self._lock:
            self._db.close()
            self.size = 0

    def _insert(self, passages: Sequence[Passage]) -> None:
        counted = 0
        with self._transaction():
            for expected, passage in enumerate(passages, self.stop):
                if passage.position != expected:
                    raise ValueError(f"turn {expected} comes next, not {passage.position}")
                said = words(passage.text())
                row = (passage.position, len(said), _encode(passage))
                self._db.execute("INSERT INTO turns VALUES (?, ?, ?)", row)
                self._db.execute("INSERT INTO said(rowid, body) VALUES (?, ?)", (expected, " ".join(said)))
                counted += len(said)
        self._words += counted
        self.stop += len(passages)

    def _remove_before(self, position: int) -> None:
        rows = self._db.execute(
            "SELECT position, words, passage FROM turns WHERE position < ?", (position,)
        ).fetchall()
        with self._transaction():
            for at, _, blob in rows:
                # A contentless table takes a row away if it is told what the row said.
                said = " ".join(words(_decode(blob).text()))
                self._db.execute("INSERT INTO said(said, rowid, body) VALUES ('delete', ?, ?)", (at, said))
            self._db.execute("DELETE FROM turns WHERE position < ?", (position,))
        self._words -= sum(count for _, count, _ in rows)
        self.start = position

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _terms(self, asked: Sequence[Sentence]) -> list[Term]:
        """The words with their stems, and how many turns have them."""
        every = list(dict.fromkeys(word for sentence in asked for word in sentence.words))
        self._db.execute("INSERT INTO asked(rowid, body) VALUES (1, ?)", (" ".join(every),))
        rows = self._db.execute(_TERMS).fetchall()
        self._db.execute("INSERT INTO asked(asked) VALUES ('delete-all')")
        return [Term(word=every[offset], stem=stem, turns=turns) for offset, stem, turns in rows]

    def _postings(self, sought: Wanted, cut: int) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for stem in sought.stems:
            for (position,) in self._db.execute(_POSTINGS, (stem, cut)):
                found.setdefault(position, []).append(stem)
        return found

    def _found(self, positions: Sequence[int]) -> dict[int, Found]:
        holes = ",".join("?" * len(positions))
        query = f"SELECT position, words, passage FROM turns WHERE position IN ({holes})"  # noqa: S608 - only marks
        rows = self._db.execute(query, positions).fetchall()
        return {position: Found(_decode(blob), count) for position, count, blob in rows}

    def _measure(self) -> None:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (page_size,) = self._db.execute("PRAGMA page_size").fetchone()
        self.size = pages * page_size
