"""Computes ROUGE-1, -2, -L and -Lsum (Lin 2004): the same figures as the package rouge-score in much less time.

Words are those of the package: lower case, a-z and 0-9, Porter stems. A score is the F1 of what two texts share:
n-grams, or the words of a longest common subsequence (LCS). L takes each text as one sequence. Lsum takes each sentence
of the reference, finds its LCS with every sentence of the prediction, and counts the words that are in any of these
LCSs.

rapidfuzz finds an LCS faster. But if there are several, it often finds another one than rouge-score, and Lsum depends
on which one it is. For L alone it would save 1 to 7 % of the time and no code.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, pairwise

Words = Sequence[str]


def sees(reference: str) -> bool:
    """Return whether ROUGE is defined for a reference: at least half of its letters are Latin, or it has no letters.

    The words of other scripts do not exist for ROUGE. A perfect summary in Chinese would score 0, and any summary that
    has the right year in it would score 100.
    """
    letters = [letter for letter in reference if letter.isalpha()]
    if letters and not any(letter.isascii() and letter.isalnum() for letter in reference):
        return False
    return 2 * sum("LATIN" in unicodedata.name(letter, "") for letter in letters) >= len(letters)


class Rouge:
    """Scores pairs of texts. Use one object for many pairs, because it stems each word only once."""

    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(1 << 18)(PorterStemmer().stem)

    def __call__(self, prediction: Sequence[str], reference: Sequence[str]) -> dict[str, float]:
        """Return the F1 (0 to 1) of each of `names` for two lists of sentences. A text without words scores 0."""
        p, r = ([self.words(sentence) for sentence in text] for text in (prediction, reference))
        whole_p, whole_r = list(chain(*p)), list(chain(*r))
        together = len(whole_p), len(whole_r)
        in_order = f1(lcs_rows(whole_p, whole_r)[-1].bit_count(), *together)
        alone = len(p) == len(r) == 1
        return {
            "rouge1": f1((Counter(whole_p) & Counter(whole_r)).total(), *together),
            "rouge2": f1((bigrams(whole_p) & bigrams(whole_r)).total(), *(max(0, n - 1) for n in together)),
            "rougeL": in_order,
            "rougeLsum": in_order if alone else f1(shared_by_sentence(p, r), *together),
        }

    def words(self, text: str) -> list[str]:
        from rouge_score.tokenize import tokenize

        return tokenize(text, self)  # it calls only `stem`, which this object has


def f1(shared: int, predicted: int, wanted: int) -> float:
    return 2 * shared / (predicted + wanted) if shared else 0.0


def bigrams(words: Words) -> Counter[tuple[str, str]]:
    return Counter(pairwise(words))


def lcs_rows(columns: Words, rows: Words) -> list[int]:
    """Return the table of LCS lengths of all prefixes, one integer for each row (Allison and Dix 1986).

    It has one row more than `rows`. Bit j of row i is 1 if the LCS of rows[:i] and columns[:j + 1] is longer than the
    LCS of rows[:i] and columns[:j]. So the length for columns[:j] is the number of ones below bit j. A row takes four
    operations, no matter how long it is.
    """
    places: dict[str, int] = {}
    for j, word in enumerate(columns):
        places[word] = places.get(word, 0) | 1 << j
    table = [0]
    for word in rows:
        last = table[-1]
        either = last | places.get(word, 0)
        table.append(either & ((either - (last << 1 | 1)) ^ either))
    return table


def lcs_places(columns: Words, rows: Words) -> set[int]:
    """Return the indices in `rows` of the words of one LCS. If there are several, it is the one of rouge-score."""
    table, found = lcs_rows(columns, rows), set()
    i, j = len(rows), len(columns)
    while i and j:
        if rows[i - 1] == columns[j - 1]:
            i, j = i - 1, j - 1
            found.add(i)
        elif (table[i] & ((1 << j - 1) - 1)).bit_count() > (table[i - 1] & ((1 << j) - 1)).bit_count():
            j -= 1
        else:
            i -= 1
    return found


def shared_by_sentence(prediction: Sequence[Words], reference: Sequence[Words]) -> int:
    """Count the reference's words that are in an LCS with a predicted sentence. Each predicted word counts once."""
    left = Counter(word for sentence in prediction for word in sentence)
    shared = 0
    for wanted in reference:
        known = set(wanted)
        found = set().union(*(lcs_places(written, wanted) for written in prediction if not known.isdisjoint(written)))
        for place in sorted(found):
            if left[wanted[place]] > 0:
                left[wanted[place]] -= 1
                shared += 1
    return shared
