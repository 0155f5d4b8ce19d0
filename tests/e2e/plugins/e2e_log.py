"""Carry a value from the access phase to the log phase, where the request itself is gone."""

Schema = ({"label": {"type": "string"}},)
version = "1.2.3"
priority = 10


class Plugin:
    def __init__(self, config):
        self.label = config.get("label", "none")

    def rewrite(self, kong):
        kong.ctx.shared.set("trail", ["rewrite"])

    def access(self, kong):
        token = kong.request.get_header("x-token")
        trail = kong.ctx.shared.get("trail") or []
        kong.ctx.shared.set("trail", [*trail, "access"])
        kong.ctx.shared.set("token", token)
        kong.response.set_header("x-label", self.label)
        kong.log.notice(f"hole before {token}, ", None, " hole after")

    def log(self, kong):
        facts = kong.log.serialize()
        trail = "+".join(kong.ctx.shared.get("trail"))
        token = kong.ctx.shared.get("token")
        status = kong.response.get_status()
        same = facts["response"]["status"] == status
        kong.log.notice(f"logged {token} {trail} {status} {same} {facts['request']['uri']}")
