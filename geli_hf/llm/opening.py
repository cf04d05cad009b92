"""Choice of a backend by the place where the model runs."""

from collections.abc import Mapping

from .backend import Backend
from .endpoint import Endpoint
from .local import LocalModel


def open_backend(
    model: str,
    *,
    base_url: str | None = None,
    provider: str | None = None,
    token_variable: str | None = None,
    parameters: Mapping = {},
    timeout: float = 120.0,
) -> Backend:
    """Open a chat model on a server, at an Inference Provider, or else on this machine.

    Args:
        model: name of the model; on this machine a folder, or a name on the Hub.
        base_url, provider, token_variable, timeout: see `Endpoint`.
        parameters: of the request; a model on this machine takes `max_tokens` alone.

    Raises:
        ValueError: the arguments do not fit together.
    """
    if base_url is None and provider is None:
        if token_variable is not None:
            raise ValueError("token_variable: a model on this machine needs no key; give a base URL or a provider")
        if unknown := sorted(set(parameters) - {"max_tokens"}):
            raise ValueError(f"parameters: a model on this machine takes max_tokens alone, found {unknown[0]}")
        return LocalModel(model, **parameters)
    return Endpoint(
        model,
        base_url=base_url,
        provider=provider,
        token_variable=token_variable,
        parameters=parameters,
        timeout=timeout,
    )
