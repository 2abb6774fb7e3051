"""What the demo ERP's articles are made of: categories, words, stores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """Articles of one kind; shelf life in days, and the day of the year round which most is produced."""

    name: str
    unit: str
    made: bool
    shelf_life: tuple[int, int]
    peak_day: int
    nouns: str

    @property
    def words(self) -> list[str]:
        """What its articles' names begin with."""
        return self.nouns.split()

    @property
    def whole(self) -> bool:
        """Whether amounts are pieces."""
        return self.unit == "Stück"


CATEGORIES = (
    Category("Aromen", "l", True, (180, 540), 300, "Vanillearoma Zitronenaroma Buttervanille Mandelaroma Rumaroma"),
    Category("Backmischungen", "kg", True, (120, 360), 320, "Brotmischung Kuchenmischung Biskuit Hefeteig Waffelteig"),
    Category("Farbstoffe", "kg", True, (360, 900), 120, "Curcumin Karmin Chlorophyll Spirulina Annatto"),
    Category("Gewürze", "kg", False, (270, 720), 310, "Pfeffer Paprika Zimt Koriander Muskat Kümmel Nelken"),
    Category("Klebstoffe", "kg", True, (180, 540), 180, "Dispersionskleber Schmelzkleber Dextrinleim Etikettenleim"),
    Category("Lösemittel", "l", False, (360, 1080), 150, "Ethanol Isopropanol Aceton Propylenglykol Ethylacetat"),
    Category("Reinigungsmittel", "l", True, (360, 900), 100, "Schaumreiniger Säurereiniger Entfetter Desinfektion"),
    Category("Rohstoffe", "kg", False, (90, 540), 240, "Weizenmehl Zucker Stärke Speisesalz Citronensäure Soda Talkum"),
    Category("Saucen", "Stück", True, (100, 400), 190, "Tomatensauce Senf Mayonnaise Grillsauce Remoulade Ketchup"),
    Category("Tiefkühlware", "Stück", True, (180, 540), 200, "Beerenmischung Spinat Kartoffeltasche Teigling Eismasse"),
    Category("Verpackung", "Stück", False, (720, 1500), 280, "Faltkarton Eimer Kanister Etikett Folie Fass Beutel"),
    Category("Zusatzstoffe", "kg", False, (270, 900), 60, "Lecithin Pektin Xanthan Ascorbinsäure Sorbit Guarkernmehl"),
)

VARIANTS = ("Standard", "extra", "Bio", "technisch", "fein", "grob", "mild", "konzentriert", "Export", "Hausmarke")
PACKS = ("Beutel", "Sack", "Karton", "Kanister", "Fass", "Palette", "Container", "lose")
TOWNS = ("Hamburg", "Bremen", "Mannheim", "Leuna", "Kassel", "Passau", "Rostock", "Aalen", "Graz", "Basel")
COUNTRIES = ("DE", "DE", "DE", "DE", "DE", "DE", "DE", "DE", "AT", "CH")
TRADES = ("Rohstoffhandel", "Stärkewerk", "Mühle", "Chemiehandel", "Gewürzimport", "Kartonagen", "Folienwerk")
STORES = (
    ("Wareneingang Nord", "Hamburg", "Raum"),
    ("Wareneingang Süd", "Passau", "Raum"),
    ("Hochregal 1", "Kassel", "Raum"),
    ("Hochregal 2", "Kassel", "Raum"),
    ("Kühlhaus", "Kassel", "2-8 °C"),
    ("Tiefkühlhaus", "Bremen", "-18 °C"),
    ("Gefahrstofflager", "Leuna", "Raum"),
    ("Tanklager", "Leuna", "Raum"),
    ("Kommissionierung", "Kassel", "Raum"),
    ("Versand Nord", "Hamburg", "Raum"),
    ("Versand Süd", "Passau", "Raum"),
    ("Quarantäne", "Kassel", "Raum"),
)
