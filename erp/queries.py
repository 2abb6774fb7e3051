"""Every query of the server by its name, the only place where they are; PostgreSQL shows the names too.

None of them has an index beyond the primary keys to go by until the migrations have made some.
"""

_QUERIES = {
    "healthz": "SELECT 1 AS ok",
    "kategorien": """
        SELECT a.kategorie, count(DISTINCT a.id) AS artikel, count(c.id) AS chargen
        FROM artikel AS a
        LEFT JOIN charge AS c ON c.artikel_id = a.id
        GROUP BY a.kategorie
        ORDER BY a.kategorie
    """,
    "lager": "SELECT id, name, ort, klima FROM lager ORDER BY id",
    "artikel_suche": """
        SELECT id, artikelnummer, name, kategorie, einheit, preis
        FROM artikel
        WHERE kategorie = %(kategorie)s AND name ILIKE %(muster)s
        ORDER BY name, id
        LIMIT %(limit)s
    """,
    "artikel_bestand": """
        SELECT l.id AS lager_id, l.name AS lager, sum(b.menge) AS bestand
        FROM lagerbewegung AS b
        JOIN lager AS l ON l.id = b.lager_id
        WHERE b.artikel_id = %(artikel_id)s
        GROUP BY l.id, l.name
        ORDER BY l.id
    """,
    "artikel_chargen": """
        SELECT id, chargennummer, produktionsdatum, mhd, status
        FROM charge
        WHERE artikel_id = %(artikel_id)s
        ORDER BY produktionsdatum DESC, id DESC
        LIMIT %(limit)s
    """,
    "charge_kopf": """
        SELECT c.id, c.chargennummer, c.artikel_id, a.name AS artikel, c.produktionsdatum, c.mhd, c.status,
               l.name AS lieferant
        FROM charge AS c
        JOIN artikel AS a ON a.id = c.artikel_id
        LEFT JOIN lieferant AS l ON l.id = c.lieferant_id
        WHERE c.id = %(charge_id)s
    """,
    "charge_bewegungen": """
        SELECT b.id, b.datum, b.art, b.menge, b.auftrag_id, l.name AS lager
        FROM lagerbewegung AS b
        JOIN lager AS l ON l.id = b.lager_id
        WHERE b.charge_id = %(charge_id)s
        ORDER BY b.datum, b.id
    """,
    "bewegungen_zeitraum": """
        SELECT id, datum, artikel_id, charge_id, lager_id, auftrag_id, art, menge
        FROM lagerbewegung
        WHERE datum >= %(von)s AND datum < %(bis)s
        ORDER BY datum DESC, id DESC
        LIMIT %(limit)s
    """,
    "charge_sperren": "SELECT artikel_id, status FROM charge WHERE id = %(charge_id)s FOR UPDATE",
    "charge_bestand": """
        SELECT coalesce(sum(menge), 0) AS bestand
        FROM lagerbewegung
        WHERE charge_id = %(charge_id)s AND lager_id = %(lager_id)s
    """,
    "bewegung_buchen": """
        INSERT INTO lagerbewegung (artikel_id, charge_id, lager_id, datum, art, menge)
        VALUES (%(artikel_id)s, %(charge_id)s, %(lager_id)s, now(), %(art)s, %(menge)s)
        RETURNING id, datum, artikel_id, charge_id, lager_id, auftrag_id, art, menge
    """,
    "monatsbericht": """
        SELECT a.kategorie, b.art, count(*) AS bewegungen, sum(b.menge) AS menge, sum(b.menge * a.preis) AS wert
        FROM lagerbewegung AS b
        JOIN artikel AS a ON a.id = b.artikel_id
        WHERE b.datum >= %(von)s AND b.datum < %(bis)s
        GROUP BY a.kategorie, b.art
        ORDER BY a.kategorie, b.art
    """,
}

# Written by SQLAlchemy, so that only its name is here.
ARTIKEL_DETAIL = "artikel_detail"

NAMES = frozenset({*_QUERIES, ARTIKEL_DETAIL})
QUERIES = {name: f"/* name: {name} */ {' '.join(query.split())}" for name, query in _QUERIES.items()}
