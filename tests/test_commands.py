"""What commands share: what a run's models are said to be built from."""

from featherpress.commands.targets import settings_of


def test_settings_are_the_presets_under_those_given() -> None:
    """A zoo model has its preset's settings, overridden where the recipe says so; another model what it was given."""
    found = settings_of("featherface_v2", {"bifpn_repeats": 3})
    assert (found["out_channels"], found["bifpn_repeats"]) == (32, 3)
    assert settings_of("package.module:factory", {"width": 8}) == {"width": 8}
    assert settings_of("package.module:factory", {}) == {}
