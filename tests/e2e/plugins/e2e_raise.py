"""Handlers that fail, in the phase and at the point that the configuration names."""

Schema = ({"where": {"type": "string"}},)
version = "1.2.3"
priority = 10


class Plugin:
    def __init__(self, config):
        self.config = config

    def fail(self, kong, phase):
        where = self.config["where"]
        if where == f"{phase} at once":
            raise ValueError(f"failure in {where}")
        kong.ctx.shared.get("x")
        if where == f"{phase} later":
            raise ValueError(f"failure in {where}")

    def access(self, kong):
        self.fail(kong, "access")

    def log(self, kong):
        self.fail(kong, "log")
