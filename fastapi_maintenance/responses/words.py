"""What the maintenance page says, in the languages that it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["LANGUAGES", "Words", "in_words", "words_for"]

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_UNITS = ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute"))


class Words(NamedTuple):
    """The texts of one language. Units are the word for one and the word for more."""

    title: str
    message: str
    expected: str
    about: str
    soon: str
    minute: tuple[str, str]
    hour: tuple[str, str]
    day: tuple[str, str]


LANGUAGES: Mapping[str, Words] = {
    "en": Words(
        title="Down for maintenance",
        message="We are working on it and will be back soon.",
        expected="Expected back",
        about="in about {count} {unit}",
        soon="in less than a minute",
        minute=("minute", "minutes"),
        hour=("hour", "hours"),
        day=("day", "days"),
    ),
    "de": Words(
        title="Wartungsarbeiten",
        message="Wir arbeiten daran und sind bald wieder da.",
        expected="Voraussichtlich wieder da",
        about="in etwa {count} {unit}",
        soon="in weniger als einer Minute",
        minute=("Minute", "Minuten"),
        hour=("Stunde", "Stunden"),
        day=("Tag", "Tagen"),
    ),
    "es": Words(
        title="En mantenimiento",
        message="Estamos trabajando en ello y volveremos pronto.",
        expected="Vuelta prevista",
        about="en aproximadamente {count} {unit}",
        soon="en menos de un minuto",
        minute=("minuto", "minutos"),
        hour=("hora", "horas"),
        day=("día", "días"),
    ),
    "fr": Words(
        title="Maintenance en cours",
        message="Nous y travaillons et serons bientôt de retour.",
        expected="Retour prévu",
        about="dans environ {count} {unit}",
        soon="dans moins d’une minute",  # noqa: RUF001 -- the apostrophe of print
        minute=("minute", "minutes"),
        hour=("heure", "heures"),
        day=("jour", "jours"),
    ),
    "it": Words(
        title="Manutenzione in corso",
        message="Ci stiamo lavorando e torneremo presto.",
        expected="Ritorno previsto",
        about="tra circa {count} {unit}",
        soon="tra meno di un minuto",
        minute=("minuto", "minuti"),
        hour=("ora", "ore"),
        day=("giorno", "giorni"),
    ),
    "nl": Words(
        title="Onderhoud",
        message="We zijn ermee bezig en zijn snel terug.",
        expected="Naar verwachting terug",
        about="over ongeveer {count} {unit}",
        soon="over minder dan een minuut",
        minute=("minuut", "minuten"),
        hour=("uur", "uur"),
        day=("dag", "dagen"),
    ),
    "pt": Words(
        title="Em manutenção",
        message="Estamos a trabalhar nisso e voltamos em breve.",
        expected="Regresso previsto",
        about="em cerca de {count} {unit}",
        soon="em menos de um minuto",
        minute=("minuto", "minutos"),
        hour=("hora", "horas"),
        day=("dia", "dias"),
    ),
}


def words_for(language: str) -> Words:
    """Return the texts of a language, or of the one that it is a variant of (RFC 5646), else the English ones."""
    return LANGUAGES.get(language.lower().partition("-")[0], LANGUAGES["en"])


def in_words(seconds: int, words: Words) -> str:
    """Say how long it takes, in the largest unit of which it is at least one, rounded up.

    >>> in_words(1500, LANGUAGES["en"])
    'in about 25 minutes'
    """
    for size, unit in _UNITS:
        if seconds >= size:
            count = -(-seconds // size)
            one, more = getattr(words, unit)
            return words.about.format(count=count, unit=one if count == 1 else more)
    return words.soon
