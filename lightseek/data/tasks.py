"""Makes the documents of the tasks that are about any text: the continuation of a text, and recall of one fact.

    continue    the text is cut in the middle; the first half is shown, the second half is what the model should write
    recall      a sentence of the text is asked with a gap in the place of a fact; the model should write the fact

Both take documents of any source. `load_documents` calls them, so that everything after it sees ordinary documents.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from zlib import crc32

from lightseek.data.document import Document, sentences
from lightseek.data.kinds import DERIVED

GAP = "___"


def derive(
    documents: Sequence[Document], task: str, on_bad: Callable[[ValueError], None] | None = None
) -> list[Document]:
    """Return the documents of a task. They are unchanged if the task takes documents as they are.

    A document that the task can't use goes to `on_bad` as a ValueError; without `on_bad` the error is raised.
    """
    if task not in DERIVED:
        return list(documents)
    make, found = DERIVED[task], []
    for document in documents:
        try:
            found.append(make(document))
        except ValueError as error:
            if on_bad is None:
                raise
            on_bad(error)
    return found


def continuation(document: Document) -> Document:
    """Return a document whose text is the first half of the text, in whole words, and whose summary is the second.

    Raises ValueError if the document comes as pictures, or if its text is a single word.
    """
    if document.images:
        raise ValueError(f"document {document.name} comes as pictures, and --task continue needs its text")
    text = document.text.strip()
    gaps = [match.start() for match in re.finditer(r"\s+", text)]
    if not gaps:
        raise ValueError(f"document {document.name} has no second word, so --task continue has nothing to continue")
    cut = min(gaps, key=lambda place: abs(2 * place - len(text)))
    return replace(document, text=text[:cut], summary=text[cut:].strip(), facts=())


def recall(document: Document) -> Document:
    """Return a document with a question about one of its facts, whose answer is the fact.

    The question is the sentence of the text that states the fact, with a gap in the place of the fact. If the sentence
    is nothing but the fact, the sentence before it is in the question too, or else the one after it. Only facts that
    stand in the text once are asked, and a hash of the text chooses among them. All sentences stay in the text, so the
    values in the others are distractors.
    Raises ValueError if the document comes as pictures or has no fact that can be asked.
    """
    if document.images:
        raise ValueError(f"document {document.name} comes as pictures, and --task recall needs its text")
    found = [(asked, fact) for fact in document.facts if (asked := _question(document.text, fact))]
    if not found:
        raise ValueError(f"document {document.name} has no fact that its text states once: --task recall needs one")
    question, fact = found[crc32(document.text.encode()) % len(found)]
    return replace(document, question=question, summary=fact, facts=(fact,))


def _question(text: str, fact: str) -> str | None:
    """Return the sentence that states the fact, with a gap, or None if the fact can't be asked."""
    whole = re.compile(rf"(?<!\w){re.escape(fact)}(?!\w)")
    if len(whole.findall(text)) != 1:
        return None
    said = [sentence for line in text.splitlines() for sentence in sentences(line)]
    place = next((place for place, sentence in enumerate(said) if whole.search(sentence)), None)
    if place is None:  # the fact goes over the end of a line
        return None
    asked = whole.sub(GAP, said[place])
    if re.search(r"\w", asked.replace(GAP, "")):
        return asked
    return f"{said[place - 1]} {asked}" if place else f"{asked} {said[1]}" if len(said) > 1 else None
