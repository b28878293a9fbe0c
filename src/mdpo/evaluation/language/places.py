"""Where the data of language processing is looked for."""

from pathlib import Path

import nltk

FOLDER = "nltk_data"


def look_beside(data: Path) -> None:
    """Let NLTK look in a folder ``nltk_data`` beside a benchmark's data.

    What ``NLTK_DATA`` names comes first.

    Args:
        data: Folder of the benchmark.
    """
    place = data.resolve().parent / FOLDER
    if place.is_dir() and str(place) not in nltk.data.path:
        nltk.data.path.append(str(place))
