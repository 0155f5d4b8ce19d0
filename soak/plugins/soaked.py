"""The plugin under test: its configuration says how its handlers behave."""

import ctypes
import os
import sys
import threading
import time

Schema = ({"act": {"type": "string"}}, {"size": {"type": "number"}})
version = "1.0.0"
priority = 1

kept = []


class Plugin:
    def __init__(self, config):
        self.size = int(config.get("size", 0))
        self.lock = threading.Lock()
        self.act = getattr(self, config["act"])

    def access(self, kong):
        self.act(kong)

    log = access

    # --- which end well -------------------------------------------------------------------------

    def calls(self, kong):
        kong.request.get_header("host")
        kong.request.get_path()
        kong.response.set_header("x-soaked", "yes")

    def exits(self, kong):
        kong.request.get_header("host")
        kong.response.exit(403, "no")

    def exits_and_calls(self, kong):
        """What the end raises is no Exception; and after it no call is taken."""
        try:
            kong.response.exit(403, "no")
        except Exception:
            return
        finally:
            try:
                kong.response.set_header("x-late", "yes")
            except Exception:
                pass

    def swallows(self, kong):
        """An author who catches everything."""
        try:
            kong.response.exit(403, "no")
        except BaseException:
            pass
        for _ in range(3):
            try:
                kong.request.get_header("host")
            except Exception:
                pass

    def sleeps(self, kong):
        time.sleep(0.02)
        kong.response.set_header("x-soaked", "yes")

    def locks(self, kong):
        """Handlers wait for each other, and for Kong with the lock in their hands."""
        with self.lock:
            kong.request.get_header("host")
            time.sleep(0.002)
        kong.response.set_header("x-soaked", "yes")

    def outlived(self, kong):
        """A thread of the plugin's own goes on calling, until that raises."""

        def call():
            try:
                while True:
                    kong.log("from beside")
            except BaseException:
                pass

        threading.Thread(target=call, daemon=True).start()
        kong.request.get_header("host")
        kong.response.set_header("x-soaked", "yes")

    def large(self, kong):
        kong.log("x" * self.size)

    def body(self, kong):
        data, err = kong.request.get_raw_body()
        kong.response.exit(200, {"size": len(data), "error": err})

    def grows(self, kong):
        """Keeps a size in MiB, for good."""
        kept.append(b"x" * (self.size << 20))
        kong.response.set_header("x-soaked", "yes")

    # --- which fail: the request is to be refused -------------------------------------------------

    def raises(self, kong):
        kong.request.get_header("host")
        raise ValueError("on purpose")

    def leaves(self, kong):
        kong.request.get_header("host")
        sys.exit(3)

    def hangs(self, kong):
        time.sleep(6)  # longer than --handler-timeout

    # --- which take the process along -------------------------------------------------------------

    def exits_the_process(self, kong):
        kong.request.get_header("host")
        os._exit(7)

    def segfaults(self, kong):
        kong.request.get_header("host")
        ctypes.string_at(0)
