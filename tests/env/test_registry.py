"""Environments by id, module and file; their settings; errors that say what to write."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentrl import Env, env_ids, make, register
from agentrl.env import EnvSpec, registry, spec
from agentrl.env.registry import SHIPPED
from agentrl.errors import ConfigError, DataError, EnvDefinitionError, UnknownNameError
from tests.env.orders import Orders

ORDERS_PY = Path(__file__).with_name("orders.py")


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_every_shipped_id_is_an_environment_with_a_description() -> None:
    assert set(SHIPPED) <= set(env_ids())
    for env_id in SHIPPED:
        assert issubclass(spec(env_id).load(), Env)
        assert spec(env_id).load().name == env_id
        assert spec(env_id).description


def test_an_environment_is_made_by_id_module_file_and_registration() -> None:
    register("my-orders", Orders)
    register("by-path", "tests.env.orders:Orders")
    for name in ("my-orders", "by-path", "tests.env.orders:Orders", f"{ORDERS_PY}:Orders"):
        env = make(name, size=7)
        assert (env.name, env.size) == ("orders", 7)
    assert {"my-orders", "by-path"} <= set(env_ids())


def test_a_file_is_imported_once_and_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_env.py").write_text("SIZE = 11\n")
    (tmp_path / "own.py").write_text(
        "from neighbour_of_env import SIZE\nfrom tests.env.orders import Orders\n"
        "class Own(Orders):\n    '''My own.\n\n    More.'''\n    limit = SIZE\n"
    )
    assert make(f"{tmp_path}/own.py:Own").limit == 11
    assert type(make(f"{tmp_path}/own.py:Own")) is type(make(f"{tmp_path}/../{tmp_path.name}/own.py:Own"))
    assert spec(f"{tmp_path}/own.py:Own").description == "My own."


def test_a_module_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_in_cwd.py").write_text("from tests.env.orders import Orders\nclass Shop(Orders): ...\n")
    monkeypatch.chdir(tmp_path)
    assert make("shop_in_cwd:Shop").name == "shop"


def test_entry_points_of_installed_packages_are_known(tmp_path: Path) -> None:
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[agentrl.envs]\nshop-orders = tests.env.orders:Orders\n")
    sys.path.append(str(tmp_path))
    assert "shop-orders" in env_ids()
    assert make("shop-orders").name == "orders"


def test_nothing_is_imported_to_list_or_look_up(tmp_path: Path) -> None:
    found = spec("no_such_module:Env")
    assert found == EnvSpec("no_such_module:Env", "no_such_module:Env")


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no environment 'calculater'; did you mean 'calculator'\?.*module:Class"
    ):
        make("calculater")
    with pytest.raises(UnknownNameError, match=r"no environment class in .*orders\.py 'Order'; did you mean 'Orders'"):
        make(f"{ORDERS_PY}:Order")
    with pytest.raises(ConfigError, match=r"there is no file /no/such/file\.py"):
        make("/no/such/file.py:Env")
    with pytest.raises(ConfigError, match=r"there is no module 'no_such_module'"):
        make("no_such_module:Env")
    with pytest.raises(ConfigError, match=r"there is no module 'tests\.env\.nothing'"):
        make("tests.env.nothing:Env")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Env(: ...", "SyntaxError"),
        ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'"),
        ("raise RuntimeError('at import')", "RuntimeError: at import"),
        ("Env = 3", "is not an environment class; make it a subclass of ToolEnv or Env"),
        ("from agentrl import Env as Base\nclass Env(Base): ...", "Env must define reset, step before"),
        (
            "from agentrl import *\nclass Env(ToolEnv):\n    @tool\n    def find(self, key) -> str: ...",
            r"Env\.find: parameter 'key' has no type hint; write `key: str`",
        ),
        ("from agentrl import *\nclass Env(ToolEnv): ...", "Env has no reward"),
        ("from agentrl import *\nclass Env(ToolEnv):\n    def __init__(self, **kw): ...", "cannot be given by name"),
    ],
)
def test_a_file_that_cannot_work_is_refused(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    for _ in range(2):  # the second time must not find a half-made module
        with pytest.raises(EnvDefinitionError, match=message):
            make(f"{path}:Env")


def test_a_module_whose_own_import_fails_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env_with_bad_import.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        EnvDefinitionError, match=r"env_with_bad_import cannot be imported: .*a_package_that_is_not_there"
    ):
        make("env_with_bad_import:Env")


def test_a_user_error_at_import_keeps_its_kind(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("from agentrl.errors import DataError\nraise DataError('no file')\n")
    with pytest.raises(DataError, match="no file"):
        make(f"{tmp_path}/data.py:Env")


def test_settings_are_checked_and_converted() -> None:
    register("orders", Orders)
    assert make("orders", size="12").size == 12
    with pytest.raises(
        ConfigError, match=r"environment 'orders' has no setting 'siez'; did you mean 'size'\? .*: size\."
    ):
        make("orders", siez=3)
    with pytest.raises(ConfigError, match="environment 'orders': setting size: Input should be a valid integer"):
        make("orders", size="many")


class Plain(Orders):
    __init__ = object.__init__  # type: ignore[assignment]
    size = 3


class Needy(Orders):
    def __init__(self, shop: Path, size: int = 3, untyped=None) -> None:
        super().__init__(size)
        self.shop = shop
        self.untyped = untyped


def test_an_environment_may_have_no_settings_or_required_ones() -> None:
    assert make(f"{__name__}:Plain").size == 3
    with pytest.raises(ConfigError, match=r"no setting 'size'\. Its settings: none"):
        make(f"{__name__}:Plain", size=3)
    with pytest.raises(ConfigError, match="setting shop: Field required"):
        make(f"{__name__}:Needy")
    env = make(f"{__name__}:Needy", shop="a/b", untyped=[1])
    assert (env.shop, env.size, env.untyped) == (Path("a/b"), 3, [1])


def test_an_id_is_taken_once() -> None:
    register("orders", Orders)
    register("orders", Orders)
    with pytest.raises(ConfigError, match="'orders' is taken"):
        register("orders", Plain)
    with pytest.raises(ConfigError, match="'calculator' is taken"):
        register("calculator", Orders)
    with pytest.raises(ConfigError, match="cannot be an environment's id"):
        register("a:b", Orders)
