"""Print pip's settings as environment variables of uv, one bash assignment a line. uv does not read pip.conf."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys

#: uv's variable for each of pip's settings, and what separates the values of a list.
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "proxy": ("ALL_PROXY", " "),
}
#: Sections of pip.conf, and pip's environment variables. A later one replaces an earlier one.
SECTIONS = ("global", "install", ":env:")


def pip_settings() -> dict[str, str]:
    """Return pip's settings by their names in pip.conf."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # nosec B603  # a fixed command
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in sections:
            sections[section][name] = str(ast.literal_eval(value))
    return {name: value for settings in sections.values() for name, value in settings.items()}


def main() -> None:
    """Print the assignments. A variable that is already set is left out."""
    for name, value in pip_settings().items():
        variable, separator = VARIABLES.get(name, ("", ""))
        if variable and variable not in os.environ:
            print(f"export {variable}={shlex.quote(separator.join(value.split()))}")


if __name__ == "__main__":
    main()
