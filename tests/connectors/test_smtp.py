"""The way of an e-mail to a mail server: what is handed over, over what, and what its refusals mean."""

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mail_server import MailServerHere

from tillway.connectors.smtp import MailServer
from tillway.domain.cards import Secret
from tillway.domain.mail import Delayed, Handed, Rejected

StartMail = Callable[..., MailServerHere]


@pytest.fixture
def start_mail() -> Iterator[StartMail]:
    started: list[MailServerHere] = []

    def start(**options: Any) -> MailServerHere:
        started.append(MailServerHere(**options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own making for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "here.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + made.public_bytes(pem)
    )
    return file


def theirs(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def message(to: str = "anna@example.com") -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"], made["Message-ID"] = "pay@shop.example", to, "Hällo", "<1@shop.example>"
    made.set_content("Grüße")
    return made


async def test_a_message_is_handed_over(start_mail: StartMail) -> None:
    mail = start_mail()
    assert await MailServer(f"smtp://127.0.0.1:{mail.port}").send(message()) == Handed()
    (got,) = mail.messages
    assert (got["To"], got["Message-ID"]) == ("anna@example.com", "<1@shop.example>")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("550 5.7.1 anna@example.com is not welcome", Rejected("550 5.7.1")),
        ("554 Spam", Rejected("554")),
        ("451 4.3.0 Try again", Delayed("451 4.3.0")),
    ],
)
async def test_what_a_reply_to_the_message_means(
    start_mail: StartMail, reply: str, expected: Rejected | Delayed
) -> None:
    """The text of a reply is not repeated: it may hold the address."""
    mail = start_mail()
    mail.refusals = [reply]
    assert await MailServer(f"smtp://127.0.0.1:{mail.port}").send(message()) == expected
    mail.refused_recipients = {"bert@example.com": reply}
    assert await MailServer(f"smtp://127.0.0.1:{mail.port}").send(message("bert@example.com")) == expected
    assert mail.messages == []


async def test_a_connection_that_breaks_may_have_taken_the_message(start_mail: StartMail) -> None:
    mail = start_mail()
    mail.refusals = [""]
    assert isinstance(await MailServer(f"smtp://127.0.0.1:{mail.port}").send(message()), Delayed)
    assert len(mail.messages) == 1


async def test_nobody_listens() -> None:
    gone = MailServerHere()
    gone.stop()
    posted = await MailServer("smtp://127.0.0.1:1").send(message())
    assert isinstance(posted, Delayed) and "SMTPConnectError" in posted.reason


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_password_and_tls(start_mail: StartMail, certificate: Path, scheme: str) -> None:
    mail = start_mail(password="right", tls=theirs(certificate), at_once=scheme == "smtps")
    url = f"{scheme}://shop%40mail@127.0.0.1:{mail.port}"
    ours = ssl.create_default_context(cafile=str(certificate))
    assert await MailServer(url, Secret("right"), tls=ours).send(message()) == Handed()
    assert mail.encrypted == [True]
    assert await MailServer(url, Secret("right"), tls=ours).greet() is None
    wrong = MailServer(url, Secret("wrong"), tls=ours)
    assert await wrong.send(message()) == Delayed("535 5.7.8")
    assert await wrong.greet() == "it answered 535 5.7.8"
    # Who nobody vouches for is nobody to give the password to.
    assert isinstance(await MailServer(url, Secret("right")).send(message()), Delayed)
    assert len(mail.messages) == 1


async def test_nothing_leaves_this_machine_in_the_clear(start_mail: StartMail) -> None:
    """0.0.0.0 reaches this machine too, by an address that does not say so."""
    mail = start_mail()
    posted = await MailServer(f"smtp://0.0.0.0:{mail.port}").send(message())
    assert isinstance(posted, Delayed) and mail.messages == []
