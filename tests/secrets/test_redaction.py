from __future__ import annotations

import pickle
import traceback

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError, ProxyConnectionError

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsParameterError
from airflow_provider_omics_cache.hooks.errors import api_error
from airflow_provider_omics_cache.redaction import passwords_in, printable, without_passwords

#: Texts with a password, the text without it, and the password.
WITH_PASSWORD = [
    ('to the URL: "https://user:s3cret@vpce.example/run"', 'to the URL: "https://***@vpce.example/run"', "s3cret"),
    ("https://user:s3@cret@host:80/x", "https://***@host:80/x", "s3@cret"),
    ("https://user:s3/c?r#et@host/x", "https://***@host/x", "s3/c?r#et"),
    ("https://user:12345@host/", "https://***@host/", "12345"),
    ('https://user:s3"cret@host/', "https://***@host/", 's3"cret'),
    ("https://:s3cret@host", "https://***@host", "s3cret"),
    ("https://token@host/x", "https://***@host/x", "token"),
    ("HTTP://token@host", "HTTP://***@host", "token"),
    ("socks5://user:s3cret@host, again", "socks5://***@host, again", "s3cret"),
    ("s3://key:s3cret@bucket/a", "s3://***@bucket/a", "s3cret"),
]
WITHOUT_PASSWORD = [
    "s3://connection@bucket/a@b.csv",
    "s3://bucket/key@version",
    "http://[::1]:9000/a@b",
    "http://host:8080/a@b",
    "http://host:8080, ask a@b.example",
    "https://host/a and a@b.example",
    "arn:aws:omics:us-east-1:123456789012:run/1 @ 5://",
]


@pytest.mark.parametrize(("text", "clean", "password"), WITH_PASSWORD)
def test_the_user_information_of_a_url_is_hidden(text: str, clean: str, password: str) -> None:
    assert without_passwords(text) == clean
    assert without_passwords(clean) == clean
    assert passwords_in({"proxies": [text]}) == {password}


@pytest.mark.parametrize("text", WITHOUT_PASSWORD)
def test_other_texts_do_not_change(text: str) -> None:
    assert without_passwords(text) == text
    assert passwords_in(text) == set()


def test_a_password_is_found_with_and_without_percent_encoding() -> None:
    assert passwords_in("https://a%40b:s%2Fcret@host") == {"s%2Fcret", "s/cret"}


def test_the_text_of_an_error_has_no_password() -> None:
    error = OmicsApiError("no answer from https://user:s3cret@host", reason="https://user:s3cret@host is closed")
    for each in (error, pickle.loads(pickle.dumps(error)), error.with_text(f"again: {error}")):
        assert "s3cret" not in f"{each} {each!r} {each.reason}"
    wrong = OmicsParameterError("table", "must be in S3", "https://user:s3cret@host/table.csv")
    assert "s3cret" not in f"{wrong} {wrong.value}"


URL = "https://user:s3cret@host/run"


def shown_with(error: Exception) -> str:
    """Return the traceback of the package's error for an error."""
    try:
        try:
            raise error
        except Exception as caught:
            raise api_error(caught, "GetBatch", "us-east-1", URL) from printable(caught)
    except OmicsApiError as failure:
        return "".join(traceback.format_exception(failure))


class OwnTextError(Exception):
    """Makes its text anew, as some errors of aiohttp do."""

    def __init__(self, url: str) -> None:
        super().__init__("closed")
        self._make = lambda: f"{url} is closed"

    def __str__(self) -> str:
        return self._make()


ANSWER = {"Error": {"Code": "ProxyError", "Message": f"refused for {URL}"}, "ResponseMetadata": {"HTTPStatusCode": 407}}


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url=URL, error=OSError(f"{URL} is closed")),
        ProxyConnectionError(proxy_url=URL),
        HTTPClientError(error=f"Failed to parse: {URL}", request=object()),
        ClientError(ANSWER, "GetBatch"),  # type: ignore[arg-type]
        ValueError(f"Invalid endpoint: {URL}"),
        OSError(1, f"{URL} is closed"),
        OwnTextError(URL),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_traceback_shows_a_password(error: Exception) -> None:
    assert "s3cret" not in shown_with(error)
    cause = printable(error)
    assert type(cause) is type(error) or isinstance(error, OwnTextError)
    assert "s3cret" not in f"{cause} {cause!r} {vars(cause)}"
    assert type(error).__name__ in f"{type(cause).__name__} {cause}"


def test_no_traceback_shows_the_password_of_an_earlier_error() -> None:
    def fail() -> None:
        try:
            raise OSError(f"cannot parse {URL}")
        except OSError:
            raise HTTPClientError(error="see above")  # noqa: B904

    with pytest.raises(HTTPClientError) as caught:
        fail()
    assert "s3cret" in "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in shown_with(caught.value)


def test_an_error_without_a_password_is_the_cause_itself() -> None:
    error = EndpointConnectionError(endpoint_url="https://host")
    assert printable(error) is error
