"""What the README says of SDKs, word by word."""

import pytest

from tests.sdk.bundles import EXAMPLES, version
from tests.sdk.matrix import EXPECTED, table
from tests.stage import ROOT


def test_the_readme_holds_the_table() -> None:
    """What is said of the SDKs is what every cell of the matrix is held to, with the versions."""
    readme = (ROOT / "README.md").read_text()
    _, _, rest = readme.partition("<!-- sdk-matrix -->\n")
    assert rest.partition("\n<!-- /sdk-matrix -->")[0] == table(EXPECTED)


PACKAGES = (
    *("openai", "ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai"),
    *("@langchain/openai", "@langchain/core"),
    *("@fingerprintjs/fingerprintjs", "@thumbmarkjs/thumbmarkjs"),
)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_examples_name_what_they_were_tried_with(package: str) -> None:
    """The version in examples/README.md is the one that the tests install."""
    words = (EXAMPLES / "README.md").read_text().split()
    assert f"`{package}` {version(package)}" in " ".join(words)


def test_every_example_is_named() -> None:
    """No file of the folder is missing from its README."""
    readme = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert {name for name in files if f"({name})" not in readme} == set()


def test_the_three_lines_of_the_readme_are_those_of_the_example() -> None:
    """What is new in the README's snippet is what is marked in examples/openai-js.js."""
    _, _, snippet = (ROOT / "README.md").read_text().partition("```js\nimport OpenAI")
    new = lines_with("// new", snippet.partition("```")[0])
    assert new == lines_with("// Keyturn", (EXAMPLES / "openai-js.js").read_text())
    assert len(new) == 3


def lines_with(mark: str, text: str) -> list[str]:
    """The lines that end so, without it."""
    return [line.removesuffix(mark) for line in text.splitlines() if line.endswith(mark)]
