"""The plugin whose handlers a test writes: its configuration holds their source.

Each instance runs the source as a module of its own; a function named like a phase is that phase's
handler and is called with the plugin's object and ``kong``. ``start`` is called by ``__init__``,
``close`` with the object.
"""

Schema = ({"source": {"type": "string", "required": True}},)
version = "1.0.0"
priority = 10


class Plugin:
    def __init__(self, config):
        self.config = config
        self.author = {"__name__": "author_source"}
        exec(compile(config["source"], "<source>", "exec"), self.author)
        if "start" in self.author:
            self.author["start"](self, config)

    def certificate(self, kong):
        return self.author["certificate"](self, kong)

    def rewrite(self, kong):
        return self.author["rewrite"](self, kong)

    def access(self, kong):
        return self.author["access"](self, kong)

    def response(self, kong):
        return self.author["response"](self, kong)

    def preread(self, kong):
        return self.author["preread"](self, kong)

    def log(self, kong):
        return self.author["log"](self, kong)

    def close(self):
        if "close" in self.author:
            self.author["close"](self)
