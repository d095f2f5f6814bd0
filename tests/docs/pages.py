"""The fenced blocks of the pages, and the commands in them."""

import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "findings" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(\w*)[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block:
    """`words`: what stands behind the language, such as `long` or a file's name."""

    def __init__(self, page, language, words, text):
        self.page, self.language, self.words, self.text = page, language, words, text
        self.name = f"{page.relative_to(ROOT)}: {self.text.splitlines()[0][:60] if text else ''}"

    @property
    def is_long(self):
        return "long" in self.words

    def commands(self):
        """Each command as a list of words, without comments."""
        joined = self.text.replace("\\\n", " ")
        return [words for words in (shlex.split(line, comments=True)
                                    for line in joined.splitlines()) if words]


def blocks(language=None):
    found = [Block(page, language, words.split(), text) for page in PAGES
             for language, words, text in FENCE.findall(page.read_text())]
    return [block for block in found if language in (None, block.language)]


def file_block(page, name):
    """The text of the one block on `page` that is the file `name`."""
    found = [block for block in blocks() if block.page.name == page and name in block.words]
    assert len(found) == 1, (page, name, [block.name for block in found])
    return found[0].text
