"""The languages of a payer's pages and mails: their words, and how each writes amounts and dates."""

from datetime import UTC, datetime, tzinfo
from typing import Final

from tillway.domain.money import MINOR_UNITS, minor_to_major

LANGUAGES: Final = ("en", "de", "fr", "es")

_NARROW_SPACE = "\u202f"

_SIGNS: Final = {"en": (",", "."), "de": (".", ","), "fr": (_NARROW_SPACE, ","), "es": (".", ",")}
"""The sign between groups of three digits and the decimal sign, as CLDR 48 has them."""

_MONTHS: Final = {
    "en": [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    "de": [
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ],
    "fr": [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ],
    "es": [
        "enero",
        "febrero",
        "marzo",
        "abril",
        "mayo",
        "junio",
        "julio",
        "agosto",
        "septiembre",
        "octubre",
        "noviembre",
        "diciembre",
    ],
}
_DAYS: Final = {
    "en": "{day} {month} {year}",
    "de": "{day}. {month} {year}",
    "fr": "{day} {month} {year}",
    "es": "{day} de {month} de {year}",
}
_DATES: Final = {
    "en": "{day}, {time} {zone}",
    "de": "{day}, {time} Uhr {zone}",
    "fr": "{day} à {time} {zone}",
    "es": "{day}, {time} {zone}",
}


def choose(wanted: str | None, accepted: str | None) -> str:
    """The language of a page: `wanted` by the session, else the first of `accepted` (an Accept-Language header,
    RFC 9110, 12.5.4) by its weight, else English."""
    named = (wanted or "").partition("-")[0].lower()
    if named in LANGUAGES:
        return named
    weighed: list[tuple[float, str]] = []
    for part in (accepted or "")[:1000].split(","):
        name, _, parameters = part.strip().partition(";")
        weight = parameters.strip().removeprefix("q=") if parameters else "1"
        try:
            weighed.append((float(weight), name.partition("-")[0].strip().lower()))
        except ValueError:
            continue
    weighed.sort(key=lambda one: -one[0])
    return next((name for weight, name in weighed if weight > 0 and name in LANGUAGES), "en")


def amount(amount_minor: int, currency: str, language: str) -> str:
    """The digits of an amount as the language writes them, without its currency: 119.00, 119,00, 1.234,50."""
    whole, _, fraction = minor_to_major(amount_minor, currency).partition(".")
    group, decimal = _SIGNS[language]
    # Spanish groups from five digits on (CLDR, minimumGroupingDigits).
    grouped = whole if language == "es" and len(whole) <= 4 else f"{int(whole):,}".replace(",", group)
    return f"{grouped}{decimal}{fraction}" if MINOR_UNITS[currency] else grouped


def money(amount_minor: int, currency: str, language: str) -> str:
    """An amount with its currency: 119.00 EUR."""
    return f"{amount(amount_minor, currency, language)} {currency.upper()}"


_BRANDS: Final = {"amex": "American Express", "diners": "Diners Club", "jcb": "JCB", "unionpay": "UnionPay"}


def brand_name(brand: str) -> str:
    """The name of a card's brand, as payers read it."""
    return _BRANDS.get(brand, brand.capitalize())


def day(epoch_seconds: int, language: str, zone: tzinfo = UTC) -> str:
    """A day in `zone`: 1 December 2026."""
    at = datetime.fromtimestamp(epoch_seconds, zone)
    return _DAYS[language].format(day=at.day, month=_MONTHS[language][at.month - 1], year=at.year)


def moment(epoch_seconds: int, language: str, zone: tzinfo = UTC) -> str:
    """A day and time in `zone`, with the zone's short name."""
    at = datetime.fromtimestamp(epoch_seconds, zone)
    return _DATES[language].format(day=day(epoch_seconds, language, zone), time=f"{at:%H:%M}", zone=f"{at:%Z}")


TEXTS: Final[dict[str, dict[str, str]]] = {
    "en": {
        "pay": "Pay {money}",
        "to_pay": "To pay",
        "paid": "Paid",
        "not_paid": "Not paid",
        "payment": "Payment",
        "mode": "Mode",
        "test_mode": "Test mode: no card is charged.",
        "your_order": "Your order",
        "what": "What you are buying",
        "together": "Together",
        "through": "Paid through Tillway",
        "back": "Back to the shop",
        "pay_with": "Pay with",
        "card": "Card",
        "bank": "Bank account",
        "credit": "Credit",
        "credit_is": "You have {money} of credit at {shop}.",
        "email": "E-mail, for the receipt",
        "number": "Card number",
        "expiry": "Expiry",
        "mm_yy": "MM / YY",
        "code": "Security code",
        "digits": "3 digits",
        "name": "Name on the card",
        "holder": "Account holder",
        "routing": "Routing number",
        "account": "Account number",
        "mandate": "You allow {shop} to take {money} from this account once. You can ask your bank for the money back.",
        "keep": "Keep this card",
        "keep_where": "At {shop}, for next time.",
        "promise": "Your card number goes to {shop}’s own server, encrypted, and to its bank. It stays nowhere else.",
        "promise_bank": "Your account number goes to {shop}’s own server, encrypted, and to its bank.",
        "test_cards": "Test cards",
        "test_succeeds": "succeeds",
        "test_3ds": "asks for 3-D Secure",
        "test_no_money": "has no money",
        "test_any": "Any future date, any code.",
        "not_charged": "You have not been charged.",
        "another": "Try again, or use another way to pay.",
        "another_card": "Use another card.",
        "another_card_or_bank": "Use another card, or pay by bank account.",
        "thanks": "Thank you",
        "thanks_name": "Thank you, {name}",
        "paid_on": "{money} paid on {moment}.",
        "paid_by_card": "{money} paid with {brand} ending in {last4} on {moment}.",
        "statement": "On your statement",
        "paid_soon": "Your bank is asked for {money}. {shop} hears when it has paid.",
        "receipt_to": "The receipt goes to {email}.",
        "reference": "Reference",
        "order": "Order",
        "expired": "This payment page has expired",
        "expired_is": "It was good until {moment}. You have not been charged.",
        "closed": "This payment link is closed",
        "closed_is": "It takes no more payments. You have not been charged.",
        "held": "Every place is taken at the moment",
        "held_is": "The last one is held by a payment that is not finished. "
        "If it is not completed, the place becomes free again: try again later. You have not been charged.",
        "unknown": "There is no such payment page",
        "unknown_is": "Look whether the address is complete, or ask the shop for a new one. You have not been charged.",
        "waiting": "Your bank is being asked",
        "waiting_is": "This takes a few seconds. Do not pay again: this page shows the outcome by itself.",
        "go": "Your bank wants to see that it is you",
        "go_is": "You are taken to your bank’s page, and come back here.",
        "go_on": "Go on to my bank",
        "busy": "Too many tries",
        "busy_is": "Wait a minute and load this page again. You have not been charged.",
        "insufficient_funds": "Your bank said no: there is not enough money on this card.",
        "card_declined": "Your bank declined this card.",
        "expired_card": "Your bank said no: this card has expired.",
        "incorrect_cvc": "The security code is not right.",
        "incorrect_number": "The card number is not right.",
        "invalid_expiry": "The expiry date is not right.",
        "processing_error": "Your bank could not be reached.",
        "authentication": "Your bank could not confirm that it is you.",
        "email_invalid": "The e-mail address is not right.",
        "bank_invalid": "The account number is not right.",
        "credit_low": "There is not enough credit for this payment.",
        "other": "This payment could not be taken.",
        "receipt_page": "Receipt",
        "receipt": "Receipt from {shop}",
        "receipt_is": "Thank you. You paid {money} to {shop} on {moment}.",
    },
    "de": {
        "pay": "{money} zahlen",
        "to_pay": "Zu zahlen",
        "paid": "Bezahlt",
        "not_paid": "Nicht bezahlt",
        "payment": "Zahlung",
        "mode": "Modus",
        "test_mode": "Testmodus: Keine Karte wird belastet.",
        "your_order": "Ihre Bestellung",
        "what": "Was Sie kaufen",
        "together": "Zusammen",
        "through": "Bezahlt über Tillway",
        "back": "Zurück zum Laden",
        "pay_with": "Bezahlen mit",
        "card": "Karte",
        "bank": "Bankkonto",
        "credit": "Guthaben",
        "credit_is": "Sie haben {money} Guthaben bei {shop}.",
        "email": "E-Mail, für den Beleg",
        "number": "Kartennummer",
        "expiry": "Gültig bis",
        "mm_yy": "MM / JJ",
        "code": "Prüfnummer",
        "digits": "3 Ziffern",
        "name": "Name auf der Karte",
        "holder": "Kontoinhaber",
        "routing": "Bankleitzahl (Routing Number)",
        "account": "Kontonummer",
        "mandate": "Sie ermächtigen {shop}, einmal {money} von diesem Konto einzuziehen. "
        "Sie können das Geld von Ihrer Bank zurückverlangen.",
        "keep": "Diese Karte merken",
        "keep_where": "Bei {shop}, für das nächste Mal.",
        "promise": "Ihre Kartennummer geht verschlüsselt an den eigenen Server von {shop} und an dessen Bank. "
        "Sie bleibt nirgends sonst.",
        "promise_bank": "Ihre Kontonummer geht verschlüsselt an den eigenen Server von {shop} und an dessen Bank.",
        "test_cards": "Testkarten",
        "test_succeeds": "gelingt",
        "test_3ds": "verlangt 3-D Secure",
        "test_no_money": "hat kein Geld",
        "test_any": "Jedes künftige Datum, jede Prüfnummer.",
        "not_charged": "Es wurde nichts abgebucht.",
        "another": "Versuchen Sie es noch einmal oder zahlen Sie anders.",
        "another_card": "Nehmen Sie eine andere Karte.",
        "another_card_or_bank": "Nehmen Sie eine andere Karte oder zahlen Sie vom Bankkonto.",
        "thanks": "Vielen Dank",
        "thanks_name": "Vielen Dank, {name}",
        "paid_on": "{money} bezahlt am {moment}.",
        "paid_by_card": "{money} bezahlt mit {brand} mit den Endziffern {last4} am {moment}.",
        "statement": "Auf Ihrem Kontoauszug",
        "paid_soon": "Ihre Bank wird um {money} gebeten. {shop} erfährt, wenn sie gezahlt hat.",
        "receipt_to": "Der Beleg geht an {email}.",
        "reference": "Referenz",
        "order": "Bestellung",
        "expired": "Diese Zahlungsseite ist abgelaufen",
        "expired_is": "Sie galt bis {moment}. Es wurde nichts abgebucht.",
        "closed": "Dieser Zahlungslink ist geschlossen",
        "closed_is": "Er nimmt keine Zahlungen mehr an. Es wurde nichts abgebucht.",
        "held": "Zurzeit ist jeder Platz vergeben",
        "held_is": "Den letzten hält eine Zahlung, die noch nicht abgeschlossen ist. "
        "Bleibt sie aus, wird er wieder frei: Versuchen Sie es später noch einmal. Es wurde nichts abgebucht.",
        "unknown": "Diese Zahlungsseite gibt es nicht",
        "unknown_is": "Prüfen Sie, ob die Adresse vollständig ist, oder fragen Sie im Laden nach einer neuen. "
        "Es wurde nichts abgebucht.",
        "waiting": "Ihre Bank wird gefragt",
        "waiting_is": "Das dauert einige Sekunden. Zahlen Sie nicht noch einmal: Diese Seite zeigt das Ergebnis von "
        "selbst.",
        "go": "Ihre Bank möchte sehen, dass Sie es sind",
        "go_is": "Sie kommen auf die Seite Ihrer Bank und danach hierher zurück.",
        "go_on": "Weiter zu meiner Bank",
        "busy": "Zu viele Versuche",
        "busy_is": "Warten Sie eine Minute und laden Sie die Seite neu. Es wurde nichts abgebucht.",
        "insufficient_funds": "Ihre Bank hat abgelehnt: Auf der Karte ist nicht genug Geld.",
        "card_declined": "Ihre Bank hat diese Karte abgelehnt.",
        "expired_card": "Ihre Bank hat abgelehnt: Die Karte ist abgelaufen.",
        "incorrect_cvc": "Die Prüfnummer stimmt nicht.",
        "incorrect_number": "Die Kartennummer stimmt nicht.",
        "invalid_expiry": "Das Gültigkeitsdatum stimmt nicht.",
        "processing_error": "Ihre Bank war nicht zu erreichen.",
        "authentication": "Ihre Bank konnte nicht bestätigen, dass Sie es sind.",
        "email_invalid": "Die E-Mail-Adresse stimmt nicht.",
        "bank_invalid": "Die Kontonummer stimmt nicht.",
        "credit_low": "Das Guthaben reicht für diese Zahlung nicht.",
        "other": "Diese Zahlung war nicht möglich.",
        "receipt_page": "Beleg",
        "receipt": "Beleg von {shop}",
        "receipt_is": "Vielen Dank. Sie haben am {moment} {money} an {shop} gezahlt.",
    },
    "fr": {
        "pay": "Payer {money}",
        "to_pay": "À payer",
        "paid": "Payé",
        "not_paid": "Non payé",
        "payment": "Paiement",
        "mode": "Mode",
        "test_mode": "Mode test : aucune carte n’est débitée.",
        "your_order": "Votre commande",
        "what": "Ce que vous achetez",
        "together": "Total",
        "through": "Payé avec Tillway",
        "back": "Retour à la boutique",
        "pay_with": "Payer par",
        "card": "Carte",
        "bank": "Compte bancaire",
        "credit": "Avoir",
        "credit_is": "Vous avez un avoir de {money} chez {shop}.",
        "email": "E-mail, pour le reçu",
        "number": "Numéro de carte",
        "expiry": "Expiration",
        "mm_yy": "MM / AA",
        "code": "Code de sécurité",
        "digits": "3 chiffres",
        "name": "Nom sur la carte",
        "holder": "Titulaire du compte",
        "routing": "Numéro de routage",
        "account": "Numéro de compte",
        "mandate": "Vous autorisez {shop} à prélever {money} une fois sur ce compte. "
        "Vous pouvez demander le remboursement à votre banque.",
        "keep": "Garder cette carte",
        "keep_where": "Chez {shop}, pour la prochaine fois.",
        "promise": "Votre numéro de carte va, chiffré, au serveur de {shop} et à sa banque. Il ne reste nulle part "
        "ailleurs.",
        "promise_bank": "Votre numéro de compte va, chiffré, au serveur de {shop} et à sa banque.",
        "test_cards": "Cartes de test",
        "test_succeeds": "réussit",
        "test_3ds": "demande 3-D Secure",
        "test_no_money": "n’a pas de provision",
        "test_any": "N’importe quelle date future, n’importe quel code.",
        "not_charged": "Vous n’avez pas été débité.",
        "another": "Réessayez, ou payez autrement.",
        "another_card": "Utilisez une autre carte.",
        "another_card_or_bank": "Utilisez une autre carte, ou payez par compte bancaire.",
        "thanks": "Merci",
        "thanks_name": "Merci, {name}",
        "paid_on": "{money} payés le {moment}.",
        "paid_by_card": "{money} payés par {brand} se terminant par {last4} le {moment}.",
        "statement": "Sur votre relevé",
        "paid_soon": "{money} sont demandés à votre banque. {shop} saura quand elle aura payé.",
        "receipt_to": "Le reçu est envoyé à {email}.",
        "reference": "Référence",
        "order": "Commande",
        "expired": "Cette page de paiement a expiré",
        "expired_is": "Elle était valable jusqu’au {moment}. Vous n’avez pas été débité.",
        "closed": "Ce lien de paiement est fermé",
        "closed_is": "Il n’accepte plus de paiements. Vous n’avez pas été débité.",
        "held": "Toutes les places sont prises pour le moment",
        "held_is": "La dernière est retenue par un paiement qui n’est pas terminé. "
        "S’il n’aboutit pas, elle redevient libre : réessayez plus tard. Vous n’avez pas été débité.",
        "unknown": "Cette page de paiement n’existe pas",
        "unknown_is": "Vérifiez que l’adresse est complète, ou demandez-en une autre à la boutique. "
        "Vous n’avez pas été débité.",
        "waiting": "Votre banque est interrogée",
        "waiting_is": "Cela prend quelques secondes. Ne payez pas une seconde fois : cette page affichera le résultat.",
        "go": "Votre banque veut s’assurer que c’est vous",
        "go_is": "Vous allez sur la page de votre banque, puis revenez ici.",
        "go_on": "Continuer vers ma banque",
        "busy": "Trop d’essais",
        "busy_is": "Attendez une minute, puis rechargez cette page. Vous n’avez pas été débité.",
        "insufficient_funds": "Votre banque a refusé : la provision de cette carte est insuffisante.",
        "card_declined": "Votre banque a refusé cette carte.",
        "expired_card": "Votre banque a refusé : cette carte a expiré.",
        "incorrect_cvc": "Le code de sécurité n’est pas correct.",
        "incorrect_number": "Le numéro de carte n’est pas correct.",
        "invalid_expiry": "La date d’expiration n’est pas correcte.",
        "processing_error": "Votre banque n’a pas pu être jointe.",
        "authentication": "Votre banque n’a pas pu confirmer que c’est vous.",
        "email_invalid": "L’adresse e-mail n’est pas correcte.",
        "bank_invalid": "Le numéro de compte n’est pas correct.",
        "credit_low": "L’avoir ne suffit pas pour ce paiement.",
        "other": "Ce paiement n’a pas pu être effectué.",
        "receipt_page": "Reçu",
        "receipt": "Reçu de {shop}",
        "receipt_is": "Merci. Vous avez payé {money} à {shop} le {moment}.",
    },
    "es": {
        "pay": "Pagar {money}",
        "to_pay": "A pagar",
        "paid": "Pagado",
        "not_paid": "No pagado",
        "payment": "Pago",
        "mode": "Modo",
        "test_mode": "Modo de prueba: no se cobra ninguna tarjeta.",
        "your_order": "Su pedido",
        "what": "Lo que compra",
        "together": "Total",
        "through": "Pagado con Tillway",
        "back": "Volver a la tienda",
        "pay_with": "Pagar con",
        "card": "Tarjeta",
        "bank": "Cuenta bancaria",
        "credit": "Saldo",
        "credit_is": "Tiene {money} de saldo en {shop}.",
        "email": "Correo electrónico, para el recibo",
        "number": "Número de tarjeta",
        "expiry": "Caducidad",
        "mm_yy": "MM / AA",
        "code": "Código de seguridad",
        "digits": "3 cifras",
        "name": "Nombre en la tarjeta",
        "holder": "Titular de la cuenta",
        "routing": "Número de ruta",
        "account": "Número de cuenta",
        "mandate": "Autoriza a {shop} a cobrar {money} una vez de esta cuenta. Puede pedir la devolución a su banco.",
        "keep": "Guardar esta tarjeta",
        "keep_where": "En {shop}, para la próxima vez.",
        "promise": "Su número de tarjeta va, cifrado, al servidor de {shop} y a su banco. No queda en ningún otro "
        "lugar.",
        "promise_bank": "Su número de cuenta va, cifrado, al servidor de {shop} y a su banco.",
        "test_cards": "Tarjetas de prueba",
        "test_succeeds": "funciona",
        "test_3ds": "pide 3-D Secure",
        "test_no_money": "no tiene fondos",
        "test_any": "Cualquier fecha futura, cualquier código.",
        "not_charged": "No se le ha cobrado nada.",
        "another": "Inténtelo de nuevo o pague de otra forma.",
        "another_card": "Use otra tarjeta.",
        "another_card_or_bank": "Use otra tarjeta o pague desde una cuenta bancaria.",
        "thanks": "Gracias",
        "thanks_name": "Gracias, {name}",
        "paid_on": "{money} pagados el {moment}.",
        "paid_by_card": "{money} pagados con {brand} terminada en {last4} el {moment}.",
        "statement": "En su extracto",
        "paid_soon": "Se han pedido {money} a su banco. {shop} sabrá cuándo ha pagado.",
        "receipt_to": "El recibo se envía a {email}.",
        "reference": "Referencia",
        "order": "Pedido",
        "expired": "Esta página de pago ha caducado",
        "expired_is": "Era válida hasta el {moment}. No se le ha cobrado nada.",
        "closed": "Este enlace de pago está cerrado",
        "closed_is": "Ya no admite pagos. No se le ha cobrado nada.",
        "held": "En este momento todas las plazas están ocupadas",
        "held_is": "La última la retiene un pago que no ha terminado. "
        "Si no se completa, vuelve a quedar libre: inténtelo más tarde. No se le ha cobrado nada.",
        "unknown": "Esta página de pago no existe",
        "unknown_is": "Compruebe que la dirección esté completa o pida otra a la tienda. No se le ha cobrado nada.",
        "waiting": "Se está preguntando a su banco",
        "waiting_is": "Tarda unos segundos. No pague otra vez: esta página mostrará el resultado.",
        "go": "Su banco quiere comprobar que es usted",
        "go_is": "Irá a la página de su banco y después volverá aquí.",
        "go_on": "Continuar a mi banco",
        "busy": "Demasiados intentos",
        "busy_is": "Espere un minuto y vuelva a cargar esta página. No se le ha cobrado nada.",
        "insufficient_funds": "Su banco lo ha rechazado: no hay fondos suficientes en esta tarjeta.",
        "card_declined": "Su banco ha rechazado esta tarjeta.",
        "expired_card": "Su banco lo ha rechazado: esta tarjeta ha caducado.",
        "incorrect_cvc": "El código de seguridad no es correcto.",
        "incorrect_number": "El número de tarjeta no es correcto.",
        "invalid_expiry": "La fecha de caducidad no es correcta.",
        "processing_error": "No se ha podido contactar con su banco.",
        "authentication": "Su banco no ha podido confirmar que es usted.",
        "email_invalid": "La dirección de correo no es correcta.",
        "bank_invalid": "El número de cuenta no es correcto.",
        "credit_low": "El saldo no alcanza para este pago.",
        "other": "No se ha podido realizar este pago.",
        "receipt_page": "Recibo",
        "receipt": "Recibo de {shop}",
        "receipt_is": "Gracias. Ha pagado {money} a {shop} el {moment}.",
    },
}
"""The words of each language. All have the same names."""

_PROBLEMS: Final = {
    "insufficient_funds": "insufficient_funds",
    "expired_card": "expired_card",
    "incorrect_cvc": "incorrect_cvc",
    "invalid_cvc": "incorrect_cvc",
    "incorrect_number": "incorrect_number",
    "invalid_number": "incorrect_number",
    "invalid_expiry_month": "invalid_expiry",
    "invalid_expiry_year": "invalid_expiry",
    "processing_error": "processing_error",
    "payment_intent_authentication_failure": "authentication",
    "authentication_required": "authentication",
    "card_declined": "card_declined",
    "card_decline_rate_limit_exceeded": "card_declined",
    "email_invalid": "email_invalid",
    "account_number_invalid": "bank_invalid",
    "routing_number_invalid": "bank_invalid",
    "invalid_bank_account_iban": "bank_invalid",
}
"""The sentences for error codes and decline codes of the API."""


def problem(code: str, decline_code: str | None, language: str) -> str:
    """The sentence that tells a payer why a payment was not taken."""
    name = _PROBLEMS.get(decline_code or "") or _PROBLEMS.get(code) or "other"
    return TEXTS[language][name]
