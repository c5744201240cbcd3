"""What the maintenance page says, in the languages that it speaks."""

from collections.abc import Mapping
from typing import NamedTuple


class Words(NamedTuple):
    """The texts of one language. Units are the word for one and the word for more."""

    title: str
    message: str
    expected: str
    about: str
    soon: str
    minute: str
    hour: str
    day: str


_SENTENCES = {
    "en": ("Down for maintenance", "We are working on it and will be back soon.", "Expected back"),
    "de": ("Wartungsarbeiten", "Wir arbeiten daran und sind bald wieder da.", "Voraussichtlich wieder da"),
    "es": ("En mantenimiento", "Estamos trabajando en ello y volveremos pronto.", "Vuelta prevista"),
    "fr": ("Maintenance en cours", "Nous y travaillons et serons bientôt de retour.", "Retour prévu"),
    "it": ("Manutenzione in corso", "Ci stiamo lavorando e torneremo presto.", "Ritorno previsto"),
    "nl": ("Onderhoud", "We zijn ermee bezig en zijn snel terug.", "Naar verwachting terug"),
    "pt": ("Em manutenção", "Estamos a trabalhar nisso e voltamos em breve.", "Regresso previsto"),
}
_DURATIONS = {
    "en": ("in about", "in less than a minute", "minute minutes", "hour hours", "day days"),
    "de": ("in etwa", "in weniger als einer Minute", "Minute Minuten", "Stunde Stunden", "Tag Tagen"),
    "es": ("en aproximadamente", "en menos de un minuto", "minuto minutos", "hora horas", "día días"),
    "fr": ("dans environ", "dans moins d’une minute", "minute minutes", "heure heures", "jour jours"),  # noqa: RUF001 -- the apostrophe of print
    "it": ("tra circa", "tra meno di un minuto", "minuto minuti", "ora ore", "giorno giorni"),
    "nl": ("over ongeveer", "over minder dan een minuut", "minuut minuten", "uur uur", "dag dagen"),
    "pt": ("em cerca de", "em menos de um minuto", "minuto minutos", "hora horas", "dia dias"),
}
LANGUAGES: Mapping[str, Words] = {
    language: Words(*sentences, *_DURATIONS[language]) for language, sentences in _SENTENCES.items()
}


def in_words(seconds: int, words: Words) -> str:
    """Say how long it takes, in the largest unit of which it is at least one, rounded up.

    >>> in_words(1500, LANGUAGES["en"])
    'in about 25 minutes'
    """
    for size, unit in ((86_400, words.day), (3600, words.hour), (60, words.minute)):
        if seconds >= size:
            count = -(-seconds // size)
            one, more = unit.split()
            return f"{words.about} {count} {one if count == 1 else more}"
    return words.soon
