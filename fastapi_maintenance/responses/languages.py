"""The languages of the maintenance page: its built-in texts, `PageWords` for more, and which one a visitor prefers."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from fastapi_maintenance._helpers.checks import check_name, check_str, check_text, reject, reject_value
from fastapi_maintenance.responses.negotiation import weighted

_TAG = r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*"
_RIGHT_TO_LEFT = "ar|arc|ckb|dv|fa|he|iw|ks|lrc|mzn|nqo|pnb|ps|rhg|sd|syr|ug|ur|yi"
_RIGHT_TO_LEFT_SCRIPTS = "adlm|arab|aran|hebr|nkoo|rohg|syrc|thaa"  # ISO 15924


@dataclass(frozen=True, kw_only=True)
class PageWords:
    """The texts of the maintenance page in one language, for `as_html(words={"pl": PageWords(...)})`.

    Each duration is a pair, singular and plural, with `{}` for the number. In a language with more than two forms, use
    an abbreviation such as `min` that fits every number.

    Args:
        title: The title.
        message: The message if the operator gave none.
        expected: The words before the expected end.
        soon: "In less than a minute".
        minutes: "In about a minute" and "in about {} minutes".
        hours: The same for hours.
        days: The same for days.
        status_page: The text of the link to the status page.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A text is empty or cannot be encoded in UTF-8, or a plural has no `{}`.
    """

    title: str
    message: str
    expected: str
    soon: str
    minutes: tuple[str, str]
    hours: tuple[str, str]
    days: tuple[str, str]
    status_page: str

    def __post_init__(self) -> None:
        for name, text in vars(self).items():
            if name not in {"minutes", "hours", "days"}:
                check_name(name, check_text(name, text))
                continue
            if not isinstance(text, (tuple, list)) or len(text) != len(("one", "more")):
                reject(name, "a pair of texts: singular and plural", text)
            if "{}" not in [check_name(name, check_text(name, each)) for each in text][1]:
                reject_value(name, "have {} for the number in the plural", text[1])


_TEXTS = {
    "en": """Down for maintenance | We are working on it and will be back soon. | Expected back | Status page
        in about {} | in less than a minute | minute minutes | hour hours | day days""",
    "de": """Wartungsarbeiten | Wir arbeiten daran und sind bald wieder da. | Voraussichtlich wieder da | Statusseite
        in etwa {} | in weniger als einer Minute | Minute Minuten | Stunde Stunden | Tag Tagen""",
    "es": """En mantenimiento | Estamos trabajando en ello y volveremos pronto. | Vuelta prevista | Página de estado
        en aproximadamente {} | en menos de un minuto | minuto minutos | hora horas | día días""",
    "fr": """Maintenance en cours | Nous y travaillons et serons bientôt de retour. | Retour prévu | Page d’état
        dans environ {} | dans moins d’une minute | minute minutes | heure heures | jour jours""",  # noqa: RUF001 -- a typographic apostrophe
    "it": """Manutenzione in corso | Ci stiamo lavorando e torneremo presto. | Ritorno previsto | Pagina di stato
        tra circa {} | tra meno di un minuto | minuto minuti | ora ore | giorno giorni""",
    "nl": """Onderhoud | We zijn ermee bezig en zijn snel terug. | Naar verwachting terug | Statuspagina
        over ongeveer {} | over minder dan een minuut | minuut minuten | uur uur | dag dagen""",
    "pt": """Em manutenção | Estamos a trabalhar nisso e voltamos em breve. | Regresso previsto | Página de estado
        em cerca de {} | em menos de um minuto | minuto minutos | hora horas | dia dias""",
}


def _built_in(texts: str) -> PageWords:
    sentences, durations = ([text.strip() for text in line.split("|")] for line in texts.splitlines())
    title, message, expected, status_page = sentences
    about, soon, *units = durations
    minutes, hours, days = ((f"{about} {one}", f"{about} {more}") for one, more in map(str.split, units))
    return PageWords(
        title=title,
        message=message,
        expected=expected,
        soon=soon,
        minutes=minutes,
        hours=hours,
        days=days,
        status_page=status_page,
    )


LANGUAGES: Mapping[str, PageWords] = {language: _built_in(texts) for language, texts in _TEXTS.items()}


def check_language(name: str, value: object) -> str:
    """Return the value if it is a language tag."""
    tag = check_str(name, value)
    return tag if re.fullmatch(_TAG, tag) else reject_value(name, "be a language tag such as 'en' or 'pt-BR'", value)


def check_words(name: str, value: object) -> dict[str, PageWords]:
    """Return the built-in languages and these, by lower-case tag."""
    if not isinstance(value, Mapping):
        reject(name, "a mapping from language to PageWords", value)
    for tag, words in value.items():
        check_language(f"a key of {name}", tag)
        if not isinstance(words, PageWords):
            reject(f"{name}[{tag!r}]", "a PageWords", words)
    return {**LANGUAGES, **{tag.lower(): words for tag, words in value.items()}}


def direction_of(tag: str) -> str:
    """Return the writing direction of a language, `rtl` or `ltr`, from the script in its tag or else the language.

    >>> direction_of("ar-EG"), direction_of("az-Arab"), direction_of("en")
    ('rtl', 'rtl', 'ltr')
    """
    language, *others = tag.lower().split("-")
    script = next((subtag for subtag in others if len(subtag) == len("arab") and subtag.isalpha()), None)
    is_rtl = re.fullmatch(_RIGHT_TO_LEFT_SCRIPTS, script) if script else re.fullmatch(_RIGHT_TO_LEFT, language)
    return "rtl" if is_rtl else "ltr"


def in_words(seconds: int, words: PageWords) -> str:
    """Return a duration in words, rounded up, in the largest unit of which it has at least one.

    >>> in_words(1500, LANGUAGES["en"])
    'in about 25 minutes'
    """
    for size, (one, more) in ((86_400, words.days), (3600, words.hours), (60, words.minutes)):
        if seconds >= size:
            count = -(-seconds // size)
            return (one if count == 1 else more).replace("{}", str(count))
    return words.soon


def preferred_language(accept_language: str, languages: Sequence[str]) -> str:
    """Return the language that this `Accept-Language` header prefers, else the first."""
    tags = [(spoken_language(tag, languages), weight) for tag, weight in weighted(accept_language)]
    accepted = [(language, weight) for language, weight in tags if language and weight > 0]
    return max(accepted, key=itemgetter(1), default=(languages[0], 1.0))[0]


def spoken_language(tag: str, languages: Container[str]) -> str | None:
    """Return the language that matches the tag or the longest beginning of it: `de` for `de-AT` (RFC 4647 3.4)."""
    subtags = tag.lower().split("-", 4)[:4]  # language, script, region, variant
    parts = ("-".join(subtags[:count]) for count in range(len(subtags), 0, -1))
    return next((part for part in parts if part in languages), None)
