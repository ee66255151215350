"""TLS to Redis: whether its files can be used, and why a connection was not made.

The law: who answers is believed only by a certificate for the host that was asked for, of an
authority that is trusted here, unless the operator switched that off.
"""

import ssl
from collections.abc import Mapping
from typing import Final

_NOT_FOR_IT: Final = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_OURS_REFUSED: Final = (
    "CERTIFICATE_REQUIRED",
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "HANDSHAKE_FAILURE",
)


def why(failure: BaseException) -> str | None:
    """What a failure means to the operator that TLS may explain; None for any other."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        if failure.verify_code in _NOT_FOR_IT:
            return "its certificate is not for the host that REDIS_URL names"
        if failure.verify_code == _EXPIRED:
            return "its certificate has expired"
        if failure.verify_code == _NOT_YET:
            return "its certificate is not valid yet: look at both clocks"
        return (
            "its certificate is of no authority that is trusted here: "
            "name yours in REDIS_URL by ?ssl_ca_certs=file"
        )
    if isinstance(failure, ssl.SSLError):
        if any(word in (failure.reason or "") for word in _OURS_REFUSED):
            return (
                "it wants a certificate of ours that it trusts: "
                "name it in REDIS_URL by ?ssl_certfile=file&ssl_keyfile=file"
            )
        return "it speaks another TLS than we do, or none"
    if isinstance(failure, ConnectionResetError | BrokenPipeError):
        return (
            "it ends the connection at once: it may speak TLS only (rediss://), "
            "or want a certificate of ours (?ssl_certfile=file&ssl_keyfile=file)"
        )
    return None


def require_files(options: Mapping[str, str]) -> None:
    """Raise `ValueError` where a file that the options of a URL name cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # empty: only these files are tried
    if authority := options.get("ssl_ca_certs"):
        try:
            context.load_verify_locations(authority)
        except OSError:
            raise ValueError("has no readable certificate in its ssl_ca_certs") from None
    if certificate := options.get("ssl_certfile"):
        key, password = options.get("ssl_keyfile"), options.get("ssl_password", "")
        try:
            context.load_cert_chain(certificate, key, password)
        except OSError:
            names = "ssl_certfile and ssl_keyfile"
            raise ValueError(f"has no readable certificate with its key in its {names}") from None
    elif "ssl_keyfile" in options:
        raise ValueError("has a key in ssl_keyfile, and no certificate in ssl_certfile")
