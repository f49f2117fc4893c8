"""The keys of the adapter's configuration that hold the parameters of the interceptor of their name."""

SWITCHES = (
    "retry",
    "concurrency",
    "finish_reason",
    "trace",
    "budget",
    "drop_params",
    "modify_tools",
    "turn_counter",
    "headers",
)
"""Each may also be true or false; `drop_params` may be a list."""
