"""Real processes for the end-to-end tests: a plugin server, and an nginx that acts as the gateway.

These environment variables change what is tested:

KONG_PDK_REQUIRE_E2E=1  a missing nginx, module or Lua library is a failure and not a skip
KONG_PDK_E2E_BIN        directory with the `kong-python-pluginserver` and `python3` to test
KONG_PDK_E2E_ARGS       further arguments for the server, `-g` for instance
"""

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PATIENCE = 20.0  # seconds that any single condition may take
LUA_LIBRARIES = {
    "resty.core": "lua-resty-core",  # first: without it nginx does not get to the others
    "MessagePack": "lua-messagepack",
    "cjson.safe": "lua-cjson",
}


def wait_until(condition, what, timeout=PATIENCE):
    """Call `condition` until it gives something true, and return that."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain: {what}")
        time.sleep(0.01)


class Process:
    """A child in a session of its own, with its output in a file."""

    def __init__(self, name, command, prefix):
        self.name = name
        self.output = prefix / f"{name}.out"
        with self.output.open("ab") as output:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def children(self):
        """The process ids of its children."""
        return list(
            map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())
        )

    def stop(self, signum=signal.SIGTERM, timeout=PATIENCE):
        """Send the signal and return the exit status, which is -SIGKILL when it has no effect."""
        if self.alive():
            self.popen.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout)
        self.destroy()
        return self.popen.returncode

    def destroy(self):
        """Leave nothing behind: neither the process nor what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE)


class Nginx:
    """The nginx found on this machine, and what its configuration has to load."""

    def __init__(self):
        # Debian keeps it in sbin, which is not on everybody's path.
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
        self.binary = shutil.which("nginx", path=path)
        self.load_modules = []
        self.user = "user root;" if os.geteuid() == 0 else ""
        self.missing = self.probe()

    def probe(self):
        """Why the tests cannot run here, or None."""
        if self.binary is None:
            return "nginx is missing (Debian package nginx)"
        about = subprocess.run([self.binary, "-V"], capture_output=True, text=True).stderr
        found = re.search(r"--modules-path=(\S+)", about)
        folder = Path(found.group(1)) if found else Path("/usr/lib/nginx/modules")
        lua = folder / "ngx_http_lua_module.so"
        if not lua.exists():
            return f"nginx's Lua module is missing (Debian package libnginx-mod-http-lua): {lua}"
        ndk = folder / "ndk_http_module.so"
        self.load_modules = [f"load_module {path};" for path in (ndk, lua) if path.exists()]
        for library, package in LUA_LIBRARIES.items():
            problem = self.try_library(library)
            if problem:
                return f"Lua's {library} is missing (Debian package {package}): {problem}"
        return None

    def try_library(self, library):
        """What nginx says when it loads the library, or None when that works.

        `nginx -t` does not run Lua, so this is a start that ends before anything is opened.
        """
        with tempfile.TemporaryDirectory(prefix="kpdk-") as folder:
            config = Path(folder) / "nginx.conf"
            lines = [
                *self.load_modules,
                "daemon off;",
                f"pid {folder}/nginx.pid;",
                "events {}",
                "http {",
                "access_log off;",
                f'init_by_lua_block {{ require "{library}" os.exit(0) }}',
                "}",
            ]
            config.write_text("\n".join(lines))
            command = [self.binary, "-p", folder, "-c", config, "-e", f"{folder}/error.log"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            if done.returncode == 0:
                return None
            log = Path(folder) / "error.log"
            text = done.stderr + (log.read_text() if log.exists() else "")
            return re.sub(r"\s+", " ", text)[:300]


class Gateway:
    """A prefix directory with a plugin server and an nginx in it."""

    wait_until = staticmethod(wait_until)

    def __init__(self, nginx, routes, socket_name="e2e.sock"):
        self.nginx = nginx
        # Short: the path of a Unix socket must stay below 108 bytes.
        self.prefix = Path(tempfile.mkdtemp(prefix="kpdk-"))
        self.socket_path = self.prefix / socket_name
        self.error_log = self.prefix / "error.log"
        self.processes = []
        self.server = self.front = self.port = None
        settings = {"socket": str(self.socket_path), "routes": routes}
        (self.prefix / "settings.json").write_text(json.dumps(settings))

    # Processes -----------------------------------------------------------------------------------

    def start_server(self, *command):
        """Start the given command, or the installed server with the plugins of these tests."""
        if not command:
            command = [
                script("kong-python-pluginserver"),
                *("-d", HERE / "plugins", "--socket-name", self.socket_path.name),
                "--no-lua-style",
            ]
        extra = shlex.split(os.environ.get("KONG_PDK_E2E_ARGS", ""))
        self.server = self.spawn("server", [*command, "--kong-prefix", self.prefix, *extra])
        wait_until(lambda: self.listening(self.server, self.socket_path), "the server's socket")

    def start_nginx(self):
        for _ in range(3):
            # Another process may take the port before nginx does: then try the next one.
            self.port = free_port()
            self.write_config()
            config = self.prefix / "nginx.conf"
            command = [self.nginx.binary, "-p", self.prefix, "-c", config, "-e", self.error_log]
            self.front = self.spawn("nginx", command)
            with contextlib.suppress(ChildEnded):
                wait_until(
                    lambda: self.listening(self.front, ("127.0.0.1", self.port)), "nginx's port"
                )
                return
        raise AssertionError(f"nginx does not start:\n{self.logs()}")

    def workers(self):
        """The process ids of nginx's workers."""
        children = Path(f"/proc/{self.front.pid}/task/{self.front.pid}/children")
        return set(children.read_text().split())

    def spawn(self, name, command):
        process = Process(name, command, self.prefix)
        self.processes.append(process)
        return process

    def listening(self, process, address):
        if not process.alive():
            raise ChildEnded(f"{process.name} ended while it was starting:\n{self.logs()}")
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        with socket.socket(family) as probe:
            return probe.connect_ex(address if isinstance(address, tuple) else str(address)) == 0

    def write_config(self):
        text = (HERE / "nginx.conf.in").read_text()
        values = {
            "MODULES": "\n".join(self.nginx.load_modules),
            "USER": self.nginx.user,
            "PREFIX": str(self.prefix),
            "HERE": str(HERE),
            "PORT": str(self.port),
        }
        text = re.sub(r"@([A-Z]+)@", lambda match: values.get(match.group(1), match.group()), text)
        (self.prefix / "nginx.conf").write_text(text)

    def close(self):
        for process in reversed(self.processes):
            # nginx first, and with a chance to reap its workers.
            process.stop(timeout=3)
        shutil.rmtree(self.prefix, ignore_errors=True)

    def connections(self):
        """How many connections to its socket the server has not closed yet."""
        count = 0
        for line in Path("/proc/net/unix").read_text().splitlines():
            # Num RefCount Protocol Flags Type St Inode Path; the flag marks the listener
            fields = line.split(maxsplit=7)
            # The kernel goes on to show the name that the socket was made under.
            path = Path(fields[-1])
            if path.name == self.socket_path.name and self.socket_path.parent in path.parents:
                count += not int(fields[3], 16) & 0x10000
        return count

    # Requests ------------------------------------------------------------------------------------

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def request(self, path, method="GET", headers=(), body=None, connection=None):
        """One request; headers are pairs and may repeat. Returns an `Answer`."""
        own = connection or self.connection()
        try:
            own.putrequest(method, path, skip_host=any(name == "Host" for name, _ in headers))
            for name, value in headers:
                own.putheader(name, value)
            if body is not None:
                own.putheader("Content-Length", str(len(body)))
            own.endheaders(body)
            return Answer(own.getresponse())
        finally:
            if connection is None:
                own.close()

    def stats(self):
        return json.loads(self.request("/_stats").body)

    # Logs ----------------------------------------------------------------------------------------

    def log_text(self):
        return self.error_log.read_text(errors="replace") if self.error_log.exists() else ""

    def wait_for_log(self, text):
        def line_with_text():
            return next((line for line in self.log_text().splitlines() if text in line), None)

        return wait_until(line_with_text, f"{text!r} in nginx's error log")

    def show_logs(self):
        """For pytest, which shows what was printed beside a failure."""
        print(self.logs())

    def logs(self):
        files = {process.output for process in self.processes} | {self.error_log}
        parts = []
        for file in sorted(files):
            if file.exists():
                parts.append(f"--- {file.name}\n{file.read_text(errors='replace')[-4000:]}")
        return "\n".join(parts)


class Answer:
    """A response that has been read to its end."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def __getitem__(self, name):
        return self.headers[name]

    def upstream(self):
        """What the service behind the gateway saw; bytes that are no UTF-8 as surrogates."""
        return json.loads(self.body.decode("utf-8", "surrogateescape"))


class ChildEnded(Exception):
    pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def script(name):
    """The path of an installed console script, or of this interpreter for `python3`."""
    folder = os.environ.get("KONG_PDK_E2E_BIN")
    if folder is None and name == "python3":
        return sys.executable
    path = Path(folder or sysconfig.get_path("scripts")) / name
    if not path.exists():
        pytest.fail(f"{path} does not exist: is the package installed?", pytrace=False)
    return path


@pytest.fixture(scope="session")
def nginx():
    found = Nginx()
    if found.missing:
        if os.environ.get("KONG_PDK_REQUIRE_E2E") == "1":
            pytest.fail(found.missing, pytrace=False)
        pytest.skip(found.missing)
    return found


@pytest.fixture(scope="session")
def installed_script():
    return script


@pytest.fixture(scope="session")
def make_gateway(nginx):
    """A context manager around `Gateway`, which the test has to start."""

    @contextlib.contextmanager
    def make(routes, **options):
        gateway = Gateway(nginx, routes, **options)
        try:
            yield gateway
        finally:
            gateway.close()

    return make
