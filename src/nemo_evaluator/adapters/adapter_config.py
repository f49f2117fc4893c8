"""The import path of the adapter configuration in the compatible interface."""

from nemo_evaluator.api.adapter_config import (
    AdapterConfig,
    DiscoveryConfig,
    InterceptorConfig,
    PostEvalHookConfig,
    UpstreamConfig,
)

__all__ = ["AdapterConfig", "DiscoveryConfig", "InterceptorConfig", "PostEvalHookConfig", "UpstreamConfig"]
