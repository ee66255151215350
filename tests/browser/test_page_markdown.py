"""Answers as the demo page shows them, in a real Chromium: Markdown as elements, markup as text."""

import asyncio
from typing import Any, Final

import pytest
from playwright.async_api import expect

from tests.browser.corpus import ELSEWHERE, HOSTILE, LOADS, LONG, RUNS
from tests.browser.page_stage import NEEDS_CHROMIUM, Browse, Window
from tests.wire import DONE, ByHand, event

pytestmark = [NEEDS_CHROMIUM, pytest.mark.asyncio(loop_scope="module")]

# The elements and attributes that an answer may hold.
ALLOWED: Final = {
    "P": {"class"},
    "DIV": {"class", "tabindex", "role", "aria-label"},
    "SPAN": {"class", "role", "aria-label"},
    "OL": {"start"},
    "A": {"href", "rel", "target"},
    "PRE": {"tabindex", "role", "aria-label"},
    "BUTTON": {"type", "class"},
    "TH": {"class", "scope"},
    "TD": {"class"},
    **{name: {"class"} for name in ("H3", "H4", "H5", "H6")},
    **{name: set[str]() for name in ("BLOCKQUOTE", "UL", "LI", "STRONG", "EM", "DEL", "CODE")},
    **{name: set[str]() for name in ("BR", "HR", "TABLE", "THEAD", "TBODY", "TR")},
}

RENDER: Final = """async (text) => {
  const { Markdown } = await import('/markdown.js');
  const place = document.createElement('div');
  document.querySelector('#transcript').append(place);
  const answer = new Markdown(place);
  for (let at = 0; at < text.length; at += Math.ceil(text.length / 8)) {
    answer.write(text.slice(at, at + Math.ceil(text.length / 8)));
    await new Promise(requestAnimationFrame);
  }
  answer.end();
  const all = [...place.querySelectorAll('*')];
  const depth = (e) => (e === place ? 0 : 1 + depth(e.parentElement));
  return { html: place.innerHTML, text: place.textContent,
    depth: Math.max(0, ...all.map(depth)),
    elements: all.map((e) => [e.nodeName, e.getAttributeNames()]),
    links: [...place.querySelectorAll('a')].map((a) => [a.protocol, a.rel, a.target]) };
}"""

# What many pages do: the control of every claim that nothing ran and nothing was loaded.
NAIVELY: Final = """async (text) => {
  const { marked } = await import('/vendor/marked.js');
  const place = document.body.appendChild(document.createElement('div'));
  place.innerHTML = marked.parse(text);
  for (const link of place.querySelectorAll('a[href^="javascript:" i]')) link.click();
}"""
COUNT: Final = "() => { globalThis.runs = 0; globalThis.ran = () => { globalThis.runs += 1; }; }"
SEEN: Final = "() => globalThis.runs"


async def rendered(window: Window, text: str) -> Any:
    """What the page makes of an answer, written in eight pieces."""
    return await window.page.evaluate(RENDER, text)


async def test_markdown_becomes_elements(browse: Browse) -> None:
    """Each kind becomes the element that one expects, references and all."""
    link = 'rel="noopener noreferrer nofollow" target="_blank"'
    expected = {
        "a **b** *c* ~~d~~ `e&lt;`": "<p>a <strong>b</strong> <em>c</em> <del>d</del> "
        "<code>e&amp;lt;</code></p>",
        "AT&amp;T &copy; &#8364; &nope; 1 < 2": "<p>AT&amp;T © € &amp;nope; 1 &lt; 2</p>",
        "# a\n\n#### b": '<h3 class="heading-1">a</h3><h4 class="heading-4">b</h4>',
        "> a\n> b": "<blockquote><p>a\nb</p></blockquote>",
        "3. a\n4. b": '<ol start="3"><li><span>a</span></li><li><span>b</span></li></ol>',
        "- a\n  - b": "<ul><li><span>a</span><ul><li><span>b</span></li></ul></li></ul>",
        "- [x] a": '<ul><li><span class="task" role="img" aria-label="Done">☑</span>'
        "<span>a</span></li></ul>",
        "[a](https://b.example/?c=1&amp;d=2)": "<p><a " + link + ' href="https://b.example/?c=1'
        '&amp;d=2">a</a></p>',
        "me@b.example": "<p><a " + link + ' href="mailto:me@b.example">me@b.example</a></p>',
        "[a][b]\n\n[b]: https://c.example": "<p><a "
        + link
        + ' href="https://c.example/">a</a></p>',
        "![a](https://b.example/c.png)": "<p><a " + link + ' href="https://b.example/c.png">'
        "Picture: a</a></p>",
        "![a](b.png)": "<p>a</p>",
        "<b>a</b>": "<p>&lt;b&gt;a&lt;/b&gt;</p>",
        "<div>\na\n</div>": '<p class="source">&lt;div&gt;\na\n&lt;/div&gt;</p>',
        "a  \nb\n\n---": "<p>a<br>b</p><hr>",
        "|a|b|\n|-|-:|\n|c|d|": '<div class="table" tabindex="0" role="group" aria-label="Table">'
        '<table><thead><tr><th scope="col" class="align-none">a</th>'
        '<th scope="col" class="align-right">b</th></tr></thead><tbody><tr>'
        '<td class="align-none">c</td><td class="align-right">d</td></tr></tbody></table></div>',
        "```js title\na < b\n```": '<div class="code"><div class="code-bar"><span>js</span>'
        '<button type="button" class="quiet">Copy</button></div><pre tabindex="0" role="group" '
        'aria-label="Code, js"><code>a &lt; b</code></pre></div>',
    }
    async with browse() as window:
        for text, html in expected.items():
            assert (await rendered(window, text))["html"] == html
        assert window.faults == []


@pytest.mark.parametrize("text", [*RUNS, *LOADS, *HOSTILE], ids=lambda text: ascii(text[:24]))
async def test_nothing_that_is_written_becomes_markup(shared: Window, text: str) -> None:
    """Elements of the list with attributes of the list, links to http and mail; nothing else."""
    await shared.page.evaluate(COUNT)
    found = await rendered(shared, text)
    for name, attributes in found["elements"]:
        assert set(attributes) <= ALLOWED[name], name
    for protocol, rel, target in found["links"]:
        assert protocol in ("http:", "https:", "mailto:")
        assert (rel, target) == ("noopener noreferrer nofollow", "_blank")
    assert found["depth"] < 60
    assert found["text"].strip()
    assert await shared.page.evaluate(SEEN) == 0
    assert shared.faults == []


async def test_the_corpus_is_live(browse: Browse) -> None:
    """The control: a page that makes markup of it, under no policy, runs and loads all of it."""
    async with browse(view={"bypass_csp": True}) as window:
        for text in RUNS:
            await window.page.evaluate(COUNT)
            await window.page.evaluate(NAIVELY, text)
            await window.wait_for("globalThis.runs > 0")
        window.faults.clear()
        for text in LOADS:
            await window.page.evaluate(NAIVELY, text)
        asked = [f"asked {ELSEWHERE}/{name}.png" for name in "abcde"]
        assert [fault for fault in asked if fault not in window.faults] == []


async def test_the_policy_is_a_second_wall(browse: Browse) -> None:
    """Even a page that made markup of it would run none of it: the browser refuses."""
    async with browse() as window:
        await window.page.evaluate(COUNT)
        for text in RUNS:
            refused = f"(text) => ({NAIVELY})(text).then(() => '', (error) => error.name)"
            assert await window.page.evaluate(refused, text) == "TypeError"
        assert await window.page.evaluate(SEEN) == 0


SAME_IN_PIECES: Final = """async ([pieces, seed]) => {
  const { Markdown } = await import('/markdown.js');
  const random = () => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) / 0x7fffffff;
  const different = [];
  const show = (parts) => {
    const place = document.createElement('div');
    const answer = new Markdown(place);
    for (const part of parts) {
      answer.write(part);
      answer.step();
    }
    const before = place.innerHTML;
    answer.end();
    return [before, place.innerHTML];
  };
  for (let round = 0; round < 500; round += 1) {
    const count = 1 + random() * 14;
    let text = '';
    for (let i = 0; i < count; i += 1) text += pieces[Math.floor(random() * pieces.length)];
    const parts = [];
    for (let at = 0; at < text.length;) {
      const size = 1 + Math.floor(random() * 5);
      parts.push(text.slice(at, at + size));
      at += size;
    }
    const [inPieces, whole] = [show(parts), show([text])];
    const isSame = inPieces[1] === whole[1] && (/\\[r\\]:/.test(text) || inPieces[0] === whole[1]);
    if (!isSame) different.push([text, inPieces, whole]);
  }
  return different;
}"""
PIECES: Final = (
    *("# h\n", "para", "\n", "\n\n", "- a\n", "  - b\n", "1. x\n", "> q\n", "```js\n", "code\n"),
    *("```\n", "|a|b|\n", "|-|-|\n", "|1|2|\n", "    ind\n", "***\n", "[r]: http://a\n", "[r] "),
    *("**b** ", "`c` ", "<div>\n", "</div>\n", "<b>x</b> ", "text\n", "===\n", "---\n", "\t", "  "),
    *("~~~\n", "![i](http://x)", "<!-- c", "-->", "a\r\n", "- [ ] t\n", "\\", "&lt;", "10) z\n"),
)


@pytest.mark.parametrize("seed", range(4))
async def test_pieces_make_the_same_as_the_whole(shared: Window, seed: int) -> None:
    """However an answer is cut, what is shown while it comes and at its end is the same."""
    assert await shared.page.evaluate(SAME_IN_PIECES, [PIECES, seed]) == []


WATCH: Final = """() => {
  globalThis.longest = 0;
  globalThis.made = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((task) => {
    globalThis.longest = Math.max(globalThis.longest, task.duration);
  })).observe({ type: 'longtask' });
  new MutationObserver((changes) => changes.forEach((change) => {
    globalThis.made += change.addedNodes.length;
  })).observe(document.querySelector('#transcript'), { childList: true, subtree: true });
}"""
WATCHED: Final = """() => ({ longest: globalThis.longest, made: globalThis.made,
  nodes: document.querySelectorAll('.theirs:last-child .text *').length })"""


BUSY: Final = """() => {
  const end = performance.now() + 150;
  setTimeout(() => { while (performance.now() < end); });
}"""


async def streamed(window: Window, hand: ByHand, text: str, deltas: int) -> None:
    """Have a long answer written in so many pieces, by the real way of every answer."""
    size = -(-len(text) // deltas)
    await window.ask("at length")
    call = await hand.call()
    await call.begin()
    for at in range(0, len(text), size):
        await call.say(event(text[at : at + size]))
        if at % (size * 20) == 0:
            await asyncio.sleep(0.005)
    await call.end(event("", finish="stop") + DONE)
    await expect(window.part("status")).to_be_empty()


@pytest.mark.parametrize("kind", LONG)
async def test_a_long_answer_never_blocks_the_page(browse: Browse, hand: ByHand, kind: str) -> None:
    """10,000 characters in 2,000 pieces: no task over 100 ms, and few nodes made more than once."""
    seen: list[Any] = []
    settings = {"max_output_tokens": 4096, "openai_base_url": hand.url}
    async with browse(**settings) as window:
        for _ in range(3):  # a busy machine only makes tasks longer
            await window.page.evaluate(WATCH)
            await streamed(window, hand, LONG[kind], 2000)
            seen.append(await window.page.evaluate(WATCHED))
            copied = await window.page.locator(".theirs").last.inner_text()
            assert len(copied) > 3000
            if seen[-1]["longest"] < 100:
                break
            await window.part("new").click()
            await window.open()
        assert seen[-1]["longest"] < 100, seen
        assert seen[-1]["made"] < 4 * seen[-1]["nodes"] + 100, seen
        assert window.faults == []
        await window.page.evaluate(BUSY)
        # The control: a long task would be seen.
        await window.wait_for("globalThis.longest >= 100")


async def test_what_is_selected_stays_selected(browse: Browse, hand: ByHand) -> None:
    """A finished block and what is selected in it are not touched while the answer goes on."""
    select = """() => {
      const code = document.querySelector('.theirs:last-child pre code');
      globalThis.kept = code.firstChild;
      getSelection().selectAllChildren(code);
    }"""
    async with browse(openai_base_url=hand.url) as window:
        await window.ask("hello")
        call = await hand.call()
        await call.begin()
        await call.say(event("```js\nlet a;\n```\n\nMore"))
        await expect(window.page.locator(".theirs p")).to_have_text("More")
        await window.page.evaluate(select)
        for number in range(30):
            await call.say(event(f" and more {number}\n\n"))
        await call.end(event("", finish="stop") + DONE)
        await expect(window.part("status")).to_be_empty()
        assert await window.page.evaluate("() => getSelection().toString()") == "let a;"
        same = "() => document.querySelector('.theirs:last-child pre code').firstChild === kept"
        assert await window.page.evaluate(same)
        assert window.faults == []


async def test_the_reader_stays_where_they_read(browse: Browse, hand: ByHand) -> None:
    """At the end the page follows the answer; scrolled up it does not, and offers the end."""
    top = "() => document.querySelector('#transcript').scrollTop"
    async with browse(openai_base_url=hand.url) as window:
        await window.ask("hello")
        call = await hand.call()
        await call.begin()
        await call.say(event("word\n\n" * 60))
        await window.wait_for(f"({top})() > 500")
        await expect(window.part("to-end")).to_be_hidden()
        await window.page.evaluate("() => document.querySelector('#transcript').scrollTo(0, 100)")
        await expect(window.part("to-end")).to_be_visible()
        await call.say(event("more\n\n" * 60))
        await expect(window.page.get_by_text("more").last).to_be_attached()
        assert await window.page.evaluate(top) == 100
        await window.part("to-end").click()
        await expect(window.part("to-end")).to_be_hidden()
        await call.end(event("the end", finish="stop") + DONE)
        await expect(window.page.get_by_text("the end", exact=True)).to_be_in_viewport()
        assert window.faults == []
