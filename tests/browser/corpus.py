"""Answers that no page should trust, and long ones: what Markdown is rendered from in the tests."""

from typing import Final

ELSEWHERE: Final = "http://elsewhere.localhost"

# Each calls ran() where a page makes markup of it: by itself, or when its link is followed.
RUNS: Final = (
    '<img src=x onerror="ran()">',
    "text <img src=x onerror=ran()> text",
    '<details open ontoggle="ran()">x</details>',
    '<iframe srcdoc="<script>parent.ran()</script>"></iframe>',
    "<div><p><svg><style><img src=x onerror=ran()></style></svg></p></div>",
    "- a\n  - b <img src=x onerror=ran()>",
    "|a|\n|-|\n|<img src=x onerror=ran()>|",
    "> # <img src=x onerror=ran()>",
    "<!-- --><img src=x onerror=ran()>",
    '<a href="javascript:ran()">x</a>',
    "[x](javascript:ran())",
    "[x](JaVaScRiPt:ran())",
    "[x](java&#115;cript:ran())",
    "[x](&#106;avascript:ran())",
    "[x](&#x6A;avascript:ran())",
    "[x](javascript&colon;ran())",
    "[x](<javascript:ran()>)",
    "[x]\n\n[x]: javascript:ran()",
    "[**x**](javascript:ran())",
    "[![x](javascript:y)](javascript:ran())",
    "<javascript:ran()>",
)

# Each asks a stranger for something where a page makes markup of it.
LOADS: Final = (
    f"![x]({ELSEWHERE}/a.png)",
    f"[![x]({ELSEWHERE}/b.png)](https://example.org)",
    f"![x][p]\n\n[p]: {ELSEWHERE}/c.png",
    f"<img src={ELSEWHERE}/d.png>",
    f'<video poster="{ELSEWHERE}/e.png"></video>',
    f'<link rel=stylesheet href="{ELSEWHERE}/f.css">',
    f"<style>@import url({ELSEWHERE}/g.css)</style>",
)

# What is hostile in another way: it may not become an element, a bad address or a slow page.
HOSTILE: Final = (
    "<script>ran()</script>",
    "<base href=//elsewhere.localhost/><form action=/x><button>y</button></form>",
    '<meta http-equiv=refresh content="0;url=//elsewhere.localhost/">',
    "<style>body { display: none }</style>",
    "[x](data:text/html,<script>ran()</script>)",
    "[x](vbscript:ran()) [y](file:///etc/passwd) [z](blob:x) [w](//elsewhere.localhost)",
    "[x](http://) [y](https:///) [z](mailto:) [w](\x00javascript:ran())",
    '[x](http://a.example "t\\" onmouseover=\\"ran()")',
    '![x"onerror="ran()](y"onerror="ran())',
    '```"><img src=x onerror=ran()>\n</code><script>ran()</script>\n```',
    "`</code><script>ran()</script>`",
    "&lt;script&gt;ran()&lt;/script&gt; &#60;img src=x onerror=ran()&#62;",
    "[constructor] [__proto__] [hasOwnProperty][toString]",
    "\u202egnp.exe\u202c <b>\u200b</b>",
    ">" * 3000 + "x",
    "> " * 3000 + "x",
    "\n".join("  " * level + "- a" for level in range(100)),
    "**a *b ~~c " * 300,
    "[" * 5000,
    "![" * 3000,
    "[a](" * 3000,
    "`" * 3001 + "a",
    "<a " * 3000,
    "*" * 9999 + "a",
    "|a" * 2000 + "\n" + "|-" * 2000,
    "\\" * 9999,
)

_MIXED: Final = """## Part

A paragraph with **bold**, *italic*, `code`, [a link](https://example.org/a) and some more words.

- one
- two with `code`
  - three

| a | b |
| - | - |
| 1 | 2 |

```python
def add(a, b):
    return a + b
```

"""

# 10,000 characters each: of all kinds, and of one block that never ends.
LONG: Final = {
    "of all kinds": (_MIXED * 60)[:10_000],
    "code": "```js\n" + ("const value = compute(1, 2);\n" * 400)[:9_990],
    "a list": ("- an item with `code` and **bold** words\n" * 300)[:10_000],
    "a table": "| a | b |\n| - | - |\n" + ("| one `x` | two **y** |\n" * 500)[:9_980],
    "a paragraph": ("words and **bold** and `code` and [a](https://example.org) " * 300)[:10_000],
}
