"""The router: paths that end with their only id are found at once, and as the walk through the tree finds them."""

import random

from good_calls import routes as declared

from tillway.http.routes import Router


def test_a_path_that_ends_with_its_only_id_is_found_as_any_other() -> None:
    routes = list(declared())
    assert len(routes) > 100
    router, walking = Router(routes), Router(routes)
    walking._before_id.clear()
    chance = random.Random(1)
    words = [*sorted({word for route in routes for word in route.path.split("/")}), "pi_1", "*", "", "x"]
    found = 0
    for route in routes:
        for _ in range(20):
            parts = route.path.split("/") + [chance.choice(words)] * (chance.random() < 0.1)
            path = "/".join(
                chance.choice(words) if part.startswith("{") or chance.random() < 0.15 else part for part in parts
            )
            assert router.find(path) == walking.find(path), path
            found += router.find(path) is not None
    assert found > len(routes)
