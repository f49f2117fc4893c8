"""How the endpoint's certificate is checked, and whether an HTTP proxy of the environment stands before it."""

from __future__ import annotations

import ipaddress
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from nemo_evaluator import env
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.errors import MisconfigurationError


def tls_context() -> ssl.SSLContext:
    """A context that verifies certificates and host names.

    It trusts the system's authorities, which `SSL_CERT_FILE` and `SSL_CERT_DIR` replace as OpenSSL defines, and those
    of `REQUESTS_CA_BUNDLE`, a file or a folder.

    Raises:
        MisconfigurationError: one of the variables names something that is not there or holds no certificates.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    for name in (env.SSL_CERT_FILE, env.REQUESTS_CA_BUNDLE):
        bundle = env.get(name)
        if bundle is None:
            continue
        path = Path(bundle)
        try:
            if path.is_dir():
                context.load_verify_locations(capath=bundle)
            else:
                context.load_verify_locations(cafile=bundle)
        except (OSError, ssl.SSLError) as error:
            raise MisconfigurationError(f"{name}: no certificates can be read from {bundle}: {error}") from error
    return context


def environment_proxy(upstream: Upstream) -> str | None:
    """The HTTP proxy that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` ask for; never one for loopback.

    Raises:
        MisconfigurationError: it is not an HTTP proxy.
    """
    host = upstream.host
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(upstream.scheme) or proxies.get("all")
    if proxy is None:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.lower().startswith(("http://", "https://")):
        raise MisconfigurationError(
            f"{upstream.scheme.upper()}_PROXY or ALL_PROXY asks for a {proxy.partition(':')[0]} proxy; "
            "only http and https proxies can be used. Put the endpoint's host into NO_PROXY to go without."
        )
    try:
        parts = urlsplit(proxy)
        is_address = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address:
        # Without the URL, which may hold a password in a place where nobody expects it.
        raise MisconfigurationError(
            f"{upstream.scheme.upper()}_PROXY or ALL_PROXY must be like http://HOST:PORT; it cannot be read"
        )
    return proxy


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by name or address."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
