"""Write data.json beside this file: 1,000 invented events of 50 refrigerated shipping containers.

`python data/make_data.py` gives the same bytes every time. One minified event per line, so that the file diffs well.
No event carries `timestamp_start`: adding it is the job of the streams operator under test.
"""

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

EVENTS, CONTAINERS = 1_000, 50
MIN_EVENT_BYTES, MAX_EVENT_BYTES, MAX_FILE_BYTES = 200, 600, 600_000
START = datetime(2025, 11, 24, 6, tzinfo=timezone.utc)

Event = dict[str, object]

PORTS = [  # UN/LOCODE, name, latitude, longitude
    ("NLRTM", "Rotterdam", 51.9496, 4.1453),
    ("SEGOT", "Göteborg", 57.6870, 11.8550),
    ("BRSSZ", "Santos, São Paulo", -23.9608, -46.3022),
    ("CLVAP", "Valparaíso", -33.0361, -71.6258),
    ("CNSHA", "上海", 30.6267, 122.0650),
    ("JPYOK", "横浜", 35.4437, 139.6690),
    ("KRPUS", "부산", 35.0780, 128.8320),
    ("AEJEA", "جبل علي", 25.0113, 55.0610),
    ("ILHFA", "חיפה", 32.8191, 35.0044),
    ("GRPIR", "Πειραιάς", 37.9420, 23.6190),
    ("NZAKL", "Tāmaki Makaurau / Auckland", -36.8430, 174.7760),
    ("CATRR", "Trois-Rivières, Québec", 46.3380, -72.5450),
]
CARGOES = {  # goods, and the set point in °C; None: ventilated only
    "frozen cod": -20.0,
    "crème glacée": -25,
    "açaí": -18,
    "ワクチン": 2.5,
    "さくらんぼ": -0.5,
    "Käse": 4,
    "jalapeños": 7.5,
    "bananas": 13.3,
    "tulips 🌷": 0,
    "coffee": None,
}
VESSELS = ["Nordlys Ægir", "Étoile Australe", "海燕号", "Río Bravo IV", "Gökçe Şafak", "Polar Heron"]
PEOPLE = ["Zoë Müller", "Siobhán O'Neill", "王小明", "Łukasz Żak", "نور حداد", "דנה לוי", "Nguyễn Thị Hoa", "Ada Smith"]
REMARKS = [
    'Driver says "seal was intact" \\ photo taken',
    "Evaporator iced up,\nmanual defrost started ❄️",
    "冷凍機の音が異常。再点検が必要です 🔧",
    "درجة الحرارة أعلى من الحد المسموح",
    "הדלת נפתחה ללא אישור 🚨",
    "Контейнер перевірено ✅",
    "Température mesurée à \u221218 °C, dérive < 0,5 °C",
    "👩🏽‍🔧 replaced fan no. 2 & tested it",
    "",
]
FAULTS = [
    ("E107", "supply air sensor drift"),
    ("E211", "door open > 10 min"),
    ("E318", "Kältemittel zu niedrig"),
    ("E402", "電源喪失"),
    ("E520", "انقطاع الاتصال"),
]


def container_id(rng: random.Random) -> str:
    """An ISO 6346 number of the invented owner XMP, with its check digit."""
    body = f"XMPU{rng.randrange(100_000, 1_000_000)}"
    letters = [value for value in range(10, 39) if value % 11]  # A=10, B=12, ...: multiples of 11 are left out
    values = [letters[ord(c) - ord("A")] if c.isalpha() else int(c) for c in body]
    return f"{body}{sum(value << place for place, value in enumerate(values)) % 11 % 10}"


class Container:
    """One container on its way from one port to another; each method makes the details of one type of event."""

    def __init__(self, rng: random.Random, name: str) -> None:
        self.rng, self.name = rng, name
        self.cargo, self.set_point = rng.choice(list(CARGOES.items()))
        self.origin, self.destination = rng.sample(PORTS, 2)
        self.sails_after = rng.randrange(EVENTS)  # the event number

    def chance(self, probability: float) -> bool:
        """Return True with this probability (0 to 1)."""
        return self.rng.random() < probability

    def telemetry(self) -> Event:
        """What the cooling unit measures: nearly all numbers."""
        warmth = 18.0 if self.set_point is None else self.set_point
        return {
            "setPoint": self.set_point,
            "supplyAir": round(warmth + self.rng.uniform(-2, 0.5), 1),
            "probes": [round(warmth + self.rng.uniform(-1.5, 1.5), 2) for _ in range(self.rng.randrange(5))],
            "humidity": self.rng.randrange(40, 96),
            "powered": self.chance(0.9),
            "unit": {
                "imei": self.rng.randrange(35 * 10**13, 36 * 10**13),
                "kWh": round(self.rng.uniform(0, 9e4), 3),
                "leak": round(self.rng.uniform(0, 2e-4), 7),  # some print as 5.3e-05
                "rssi": -self.rng.randrange(50, 120),
                "defrost": self.rng.choice([True, False, None]),
            },
        }

    def alarm(self) -> Event:
        """A fault of the cooling unit, acknowledged by somebody or still active."""
        code, text = self.rng.choice(FAULTS)
        person = self.rng.choice([None, *PEOPLE])
        return {
            "alarm": {"code": code, "text": text, "severity": self.rng.randrange(1, 5), "active": person is None},
            "acknowledgedBy": person,
            "remark": self.rng.choice(REMARKS),
        }

    def gate(self) -> Event:
        """A truck brings the container to the terminal or fetches it."""
        weight_kg = self.rng.randrange(9_000, 34_000)
        return {
            "direction": self.rng.choice(["in", "out"]),
            "lane": self.rng.randrange(1, 13),
            "seals": [f"SL{self.rng.randrange(10**6):06}" for _ in range(self.rng.randrange(4))],
            "truck": {"driver": self.rng.choice(PEOPLE), "grossKg": weight_kg, "genset": self.chance(0.5)},
        }

    def vessel(self) -> Event:
        """Loaded onto a ship or discharged from it."""
        return {
            "operation": self.rng.choice(["load", "discharge"]),
            "vessel": {"name": self.rng.choice(VESSELS), "draught": round(self.rng.uniform(7, 16), 1)},
            "slot": [self.rng.randrange(1, 80), self.rng.randrange(12), 82],  # bay, row, tier
            "plugged": self.chance(0.95),
            "delayHours": round(self.rng.uniform(-12, 48), 2),
        }

    def inspection(self) -> Event:
        """A checklist (an array of objects) and free text in many scripts."""
        items = self.rng.sample(["gasket", "drain", "fans", "genset", "T-floor", "logger"], self.rng.randrange(2, 6))
        return {
            "inspector": self.rng.choice(PEOPLE),
            "checks": [{"item": item, "ok": self.rng.choice([True, True, False, None])} for item in items],
            "remarks": self.rng.sample(REMARKS, self.rng.randrange(4)),
        }

    def customs(self) -> Event:
        """Goods declared: cleared, held or, as null, undecided."""
        amount = round(self.rng.uniform(900, 250_000), 2)
        return {
            "cleared": self.rng.choice([True, False, None]),
            "goods": {"text": self.cargo, "hsCode": f"{self.rng.randrange(10**6):06}"},
            "value": {"amount": amount, "currency": self.rng.choice(["EUR", "CNY", "BRL", "NZD"])},
            "documents": self.rng.sample(["T1", "CMR", "EUR.1", "phyto", "原産地証明書"], self.rng.randrange(4)),
        }

    def event(self, number: int, when: datetime) -> Event:
        """The attributes that all events share, and then the details of one type, telemetry being the commonest."""
        locode, port, latitude, longitude = self.origin if number <= self.sails_after else self.destination
        kinds = [self.telemetry, self.alarm, self.gate, self.vessel, self.inspection, self.customs]
        kind = self.rng.choices(kinds, weights=[50, 12, 12, 10, 8, 8])[0]
        location = {
            "port": locode,
            "name": port,
            "latitude": round(latitude + self.rng.uniform(-0.02, 0.02), 5),
            "longitude": round(longitude + self.rng.uniform(-0.02, 0.02), 5),
        }
        shared: Event = {
            "id": f"e-{number:04}",
            "type": kind.__name__,
            "containerId": self.name,
            "eventTime": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "location": location,
        }
        return shared | kind()


def make_events(rng: random.Random) -> list[Event]:
    """All events, in the order of their times."""
    names: set[str] = set()
    while len(names) < CONTAINERS:
        names.add(container_id(rng))
    fleet = [Container(rng, name) for name in sorted(names)]
    events: list[Event] = []
    when = START
    for number in range(1, EVENTS + 1):
        when += timedelta(milliseconds=rng.randrange(200, 90_000))
        events.append(rng.choice(fleet).event(number, when))
    return events


def main() -> None:
    """Check what the data's users rely on, then write the file."""
    events = make_events(random.Random(17))
    lines = [json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in events]
    content = ("[\n" + ",\n".join(lines) + "\n]\n").encode()
    sizes = [len(line.encode()) for line in lines]
    assert min(sizes) >= MIN_EVENT_BYTES, min(sizes)
    assert max(sizes) <= MAX_EVENT_BYTES, max(sizes)
    assert len({event["id"] for event in events}) == EVENTS
    assert len({event["containerId"] for event in events}) == CONTAINERS
    assert b'"timestamp' not in content
    assert len(content) <= MAX_FILE_BYTES, len(content)
    Path(__file__).with_name("data.json").write_bytes(content)


if __name__ == "__main__":
    main()
