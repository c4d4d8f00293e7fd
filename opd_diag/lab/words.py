"""The words of the little world: who, what, where, and the sentences they stand in."""

OPERATIONS = ("add", "subtract", "multiply")
SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Kate", "Leo",
    "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tess", "Victor",
)  # fmt: skip
THINGS = (
    "apples", "pears", "plums", "figs", "lemons", "cherries", "nuts", "eggs", "books", "coins", "stones",
    "shells", "pens", "cups", "candles", "flowers", "buttons", "cards", "marbles", "ribbons",
)  # fmt: skip
PLACES = (
    "market", "garden", "harbor", "school", "station", "kitchen", "library", "farm", "beach", "bakery",
    "castle", "museum",
)  # fmt: skip
TIMES = ("Today", "Yesterday", "On Monday", "On Friday", "In spring", "At noon", "In the morning", "After lunch")
CONTAINERS = ("boxes", "bags", "baskets", "bowls")

#: Questions of each operation. Every field is filled; an unused one is simply not named.
QUESTIONS = {
    "add": (
        "{time} {name} has {first} {thing} at the {place} and buys {second} more. How many {thing} does {name} have?",
        "{time} {name} finds {first} {thing} at the {place} and {friend} brings {second} more. "
        "How many {thing} are there?",
    ),
    "subtract": (
        "{time} {name} has {first} {thing} at the {place} and gives {second} to {friend}. How many {thing} are left?",
        "{time} {name} sees {first} {thing} at the {place} and sells {second} of them. How many {thing} are left?",
    ),
    "multiply": (
        "{time} {name} fills {first} {container} at the {place} with {second} {thing} each. "
        "How many {thing} are there?",
        "{time} {name} finds {first} {container} at the {place} and each holds {second} {thing}. "
        "How many {thing} does {name} have?",
    ),
}

#: Openings and conclusions of an equation, the more usual ones first.
EQUATION_OPENINGS = (
    "Let me compute", "Let us see", "As an equation", "In numbers", "Step by step", "This is easy",
    "I write it down", "We can calculate",
)  # fmt: skip
CONCLUSIONS = ("So", "Hence", "Therefore", "Thus")

#: Verbs and endings of a narration.
GLANCES = ("looks at", "walks around", "thinks about", "points at", "smiles at", "waits for")
COUNTS = ("counts", "sorts", "gathers", "lines up")
ENDINGS = ("In the end", "At last", "Finally", "Soon")
