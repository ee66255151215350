"""Which tokens a client showed, read from what came by."""

from security.one_time_token import TokenSigner
from tests.cutting_proxy import CuttingProxy
from tests.stage import SECRET, now_ms


def tokens_shown(proxy: CuttingProxy) -> list[str]:
    """The token of each POST: its chain, by a letter, and its turn; – is none."""
    signer = TokenSigner([SECRET], tenant="main")
    chains: list[str] = []
    shown = []
    for post in proxy.of("POST"):
        token = post.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            shown.append("–")
            continue
        claims = signer.unsign(token, now_ms=now_ms())
        chains += [claims.chain] if claims.chain not in chains else []
        shown.append(f"{'abc'[chains.index(claims.chain)]}{claims.turn}")
    return shown
