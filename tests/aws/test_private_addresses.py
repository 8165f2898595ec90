"""Functions reach no bank at a private address, unless their stage allows that."""

from ipaddress import ip_network
from urllib.parse import urlsplit

import pytest

from tillway.aws.environment import settings_of
from tillway.connectors import registry
from tillway.connectors.port import Request, TransportError
from tillway.connectors.settings import SettingInvalid
from tillway.engine.webhooks.public_hosts import Reach
from tillway.settings import networks_of
from tillway.testing.far_side import Script, over_http
from tillway.wiring import within

PRIVATE = ["127.0.0.1", "[::1]", "10.0.0.7", "192.168.1.2", "169.254.169.254", "localhost", "bank.internal"]
LOOK = Request("GET", "/v1/health", moves_money=False)


def reach_of(addresses: str) -> Reach:
    settings = settings_of({"TILLWAY_PRIVATE_ADDRESSES": addresses})
    return Reach(networks_of(settings.webhook_networks))


@pytest.mark.parametrize("host", PRIVATE)
def test_a_private_address_in_a_setting_is_refused(host: str) -> None:
    build = within(reach_of("refuse"), registry.build)
    with pytest.raises(SettingInvalid, match="no public address") as refused:
        build("http_bank", {"base_url": f"http://{host}:4545"})
    assert refused.value.name == "base_url"
    with pytest.raises(SettingInvalid, match="no public address"):
        build("paypal", {"client_id": "a", "client_secret": "b", "webhook_id": "c", "base_url": f"https://{host}"})
    build("http_bank", {"base_url": "https://bank.example"})


def test_the_hosts_own_service_is_refused_where_private_addresses_are_allowed() -> None:
    build = within(reach_of("allow"), registry.build)
    build("http_bank", {"base_url": "http://127.0.0.1:4545"})
    with pytest.raises(SettingInvalid, match="no public address"):
        build("http_bank", {"base_url": "http://169.254.169.254"})


async def test_a_name_that_leads_to_a_private_address_is_refused_before_a_connection() -> None:
    """A name of this host may be allowed because some network is; its address is checked again at the socket."""
    far = Script()
    async with over_http(far) as url:
        port = urlsplit(url).port
        elsewhere = Reach((ip_network("10.0.0.0/8"),))
        _, transport = within(elsewhere, registry.build)("http_bank", {"base_url": f"http://localhost:{port}"})
        with pytest.raises(TransportError) as refused:
            await transport.send(LOOK)
        assert not refused.value.spoken and far.requests == []
        await transport.close()

        far.expect("GET", "/v1/health").answers(200, {"ok": True})
        _, transport = within(reach_of("allow"), registry.build)("http_bank", {"base_url": url})
        assert (await transport.send(LOOK)).status == 200
        await transport.close()
