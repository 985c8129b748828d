"""Lists named data sets of the hub: where each one is, what its columns are called, and how it is split.

Use a name as in `python train.py --data cnn_dailymail` or `python -m lightseek prepare mlsum-fr --out news/`; `hub.py`
reads the rows. Most data sets come as parquet from a branch that the hub makes itself, so no data set's own code ever
runs. The hub was not at hand when this was written, so `note` says which facts were checked and how.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lightseek.data.splits import Split

CONVERTED = "refs/convert/parquet"  # made by the hub; its files are {configuration}/{split}/0000.parquet and so on
OWN_SPLITS: Mapping[Split, str] = {"train": "train", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class DataSet:
    """One data set. The columns have the data set's own names; "" means that it has no such column.

    `splits` maps each of our splits to the data set's split that it is read from. A split that is missing there does
    not exist. If two of ours come from the same one, a hash of the document decides: 8 parts train, 1 validation, 1
    test.
    """

    name: str
    hub_id: str
    kind: Literal["text", "vision"]
    about: str
    licence: str
    text: str = ""
    summary: str = ""
    image: str = ""  # a picture, or a list of them
    question: str = ""
    answers: str = ""  # a list of equally good answers; the first one is used
    configuration: str = "default"
    revision: str = CONVERTED
    files: str = "{configuration}/{split}/*.parquet"
    splits: Mapping[Split, str] = field(default_factory=lambda: OWN_SPLITS)
    reader: Literal["table", "conversations", "omnidocbench", "haystack"] = "table"
    tasks: tuple[str, ...] = ("summarize", "ocr")  # the first task is the one it was made for
    note: str = ""

    @property
    def derived(self) -> str:
        """Say in words which of our splits the data set does not have itself; "" if it has all."""
        parts = []
        for theirs in dict.fromkeys(self.splits.values()):
            ours = [split for split, name in self.splits.items() if name == theirs]
            if len(ours) > 1:
                parts.append(f"{' and '.join(ours)} are parts of its {theirs} split, divided by a hash")
        return "; ".join(parts)


def _mlsum(language: str, name: str) -> DataSet:
    return DataSet(
        name=f"mlsum-{language}",
        hub_id="reciTAL/mlsum",
        configuration=language,
        kind="text",
        about=f"{name} newspaper articles and their abstracts",
        licence="other: research use",
        text="text",
        summary="summary",
        note="The branch and the columns are those that other code uses to read French and Russian from it.",
    )


def _haystack(pages: int) -> DataSet:
    return DataSet(
        name=f"document_haystack-{pages}",
        hub_id="AmazonScience/document-haystack",
        configuration=str(pages),
        kind="vision",
        about=f"reports of {pages} pages with sentences hidden in them, and a question about each",
        licence="CC-BY-NC-4.0",
        reader="haystack",
        revision="main",
        files="*/*_{configuration}Pages/Images_TextNeedles/*.jpg",
        splits={"test": "all"},
        tasks=("answer",),
        note="The layout is that of the authors' evaluation scripts. It is for evaluation only; raise max_pages to see "
        "whole reports.",
    )


_ALL = (
    DataSet(
        name="cnn_dailymail",
        hub_id="ccdv/cnn_dailymail",
        configuration="3.0.0",
        kind="text",
        about="English news and their highlights",
        licence="Apache-2.0",
        text="article",
        summary="highlights",
        note="The columns are those that other code reads. Its converted branch was not checked, only that of the same "
        "data under another id.",
    ),
    DataSet(
        name="xsum",
        hub_id="EdinburghNLP/xsum",
        kind="text",
        about="BBC articles and their one-sentence summaries",
        licence="unknown",
        text="document",
        summary="summary",
        note="The branch and the columns are those that other code reads. A few articles are empty: use skip_bad.",
    ),
    DataSet(
        name="arxiv",
        hub_id="ccdv/arxiv-summarization",
        configuration="document",
        revision="main",
        files="{configuration}/{split}-*.parquet",
        kind="text",
        about="papers and their abstracts",
        licence="unknown",
        text="article",
        summary="abstract",
        note="The files and the columns are those that other code reads.",
    ),
    DataSet(
        name="pubmed",
        hub_id="ccdv/pubmed-summarization",
        configuration="document",
        revision="main",
        files="{configuration}/{split}-*.parquet",
        kind="text",
        about="medical papers and their abstracts",
        licence="unknown",
        text="article",
        summary="abstract",
        note="The columns are those that other code reads. The files are assumed to be like those of arxiv, which has "
        "the same author.",
    ),
    DataSet(
        name="gigaword",
        hub_id="Harvard/gigaword",
        kind="text",
        about="first sentences of news and their headlines",
        licence="MIT",
        text="document",
        summary="summary",
        note="The columns are from its documentation. The converted branch was not checked, and others report that it "
        "is missing.",
    ),
    DataSet(
        name="findsum",
        hub_id="trigaten/findsum",
        kind="text",
        about="annual reports of companies and their summaries",
        licence="ODC-BY-1.0",
        text="document",
        summary="summary",
        note="Nothing was checked; the columns are those of the authors' own CSV files.",
    ),
    _mlsum("fr", "French"),
    _mlsum("es", "Spanish"),
    _mlsum("de", "German"),
    DataSet(
        name="billsum",
        hub_id="FiscalNote/billsum",
        kind="text",
        about="bills of the US Congress and their summaries",
        licence="CC0-1.0",
        text="text",
        summary="summary",
        splits={"train": "train", "validation": "train", "test": "test"},
        note="The columns and the splits are those that other code reads. The Californian test split is not used.",
    ),
    DataSet(
        name="samsum",
        hub_id="knkarthick/samsum",
        kind="text",
        about="chats and their summaries",
        licence="CC-BY-NC-ND-4.0",
        text="dialogue",
        summary="summary",
        note="It is a copy: the original, Samsung/samsum, has left the hub. The columns are those that other "
        "code reads.",
    ),
    DataSet(
        name="docmatix",
        hub_id="HuggingFaceM4/Docmatix",
        configuration="images",
        revision="main",
        files="data/{split}-*.parquet",
        kind="vision",
        about="pages of PDFs with generated questions and answers",
        licence="MIT",
        image="images",
        question="user",
        answers="assistant",
        splits={"train": "train", "validation": "train", "test": "train"},
        reader="conversations",
        tasks=("answer",),
        note="The columns are those that its authors' code reads. The names of the files were not checked.",
    ),
    DataSet(
        name="docvqa",
        hub_id="HuggingFaceM4/DocumentVQA",
        kind="vision",
        about="scanned pages, questions about them and answers",
        licence="unknown",
        image="image",
        question="question",
        answers="answers",
        revision="main",
        files="data/{split}-*.parquet",
        splits={"train": "train", "validation": "validation", "test": "validation"},
        tasks=("answer",),
        note="The columns are those that other code reads. Its authors do not publish the answers of the test split.",
    ),
    *(_haystack(pages) for pages in (5, 10, 25, 50, 75, 100, 150, 200)),
    DataSet(
        name="omnidocbench",
        hub_id="opendatalab/OmniDocBench",
        kind="vision",
        about="pages of many kinds with their text in reading order",
        licence="research use",
        revision="main",
        files="OmniDocBench.json",
        reader="omnidocbench",
        splits={"test": "all"},
        tasks=("ocr",),
        note="The layout is that which other code reads. It is for evaluation only; tables are HTML, formulas LaTeX.",
    ),
)

DATA_SETS: dict[str, DataSet] = {entry.name: entry for entry in _ALL}
# For help texts. The haystacks differ in their number of pages only.
DATA_SET_NAMES = ", ".join([*(name for name in DATA_SETS if "haystack" not in name), "document_haystack-5 to -200"])
