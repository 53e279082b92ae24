"""What is kept of a resolved config."""

import yaml
from jsonargparse import Namespace

from unstall.cli.parser import Parser
from unstall.cli.saved import settings
from unstall.cli.signature import is_signed


def test_the_settings_are_signed_and_without_what_belongs_to_the_command() -> None:
    parser = Parser(exit_on_error=False)
    for name in ("experiment", "logs_dir", "seed_everything", "model", "data", "trainer", "ckpt_path"):
        parser.add_argument(f"--{name}")
    config = parser.parse_args(["--experiment=e", "--ckpt_path=x"])
    text = settings(parser, config)
    assert is_signed(text)
    assert yaml.safe_load(text) == {
        **dict.fromkeys(("logs_dir", "seed_everything", "model", "data", "trainer")),
        "experiment": "e",
    }


def test_a_default_that_has_no_text_is_left_out() -> None:
    class Text(Parser):
        def dump(self, *_: object, **__: object) -> str:
            return "model: {device: Unable to serialize instance cpu, sizes: [1, Unable to serialize instance x]}"

    names = ("experiment", "logs_dir", "seed_everything", "model", "data", "trainer")
    config = Namespace(dict.fromkeys(names))  # type: ignore[no-untyped-call]
    text = settings(Text(), config)
    assert yaml.safe_load(text) == {"model": {"sizes": [1, "Unable to serialize instance x"]}}
    assert is_signed(text)
