"""What the README says of SDKs, word by word."""

from tests.sdk.matrix import EXPECTED, table
from tests.stage import ROOT


def test_the_readme_holds_the_table() -> None:
    """What is said of the SDKs is what every cell of the matrix is held to, with the versions."""
    readme = (ROOT / "README.md").read_text()
    _, _, rest = readme.partition("<!-- sdk-matrix -->\n")
    assert rest.partition("\n<!-- /sdk-matrix -->")[0] == table(EXPECTED)
