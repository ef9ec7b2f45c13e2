"""How the sample world is put into words: what a relation is, and those of places, firms and works.

Every relation has questions (zsRE's form), statements that end right before the object
(CounterFact's form; with the object and a full stop they are FEVER's claims and the sentences of
passages) and claims that name the object earlier. People's relations lie in `wordings_people`.
In questions and statements `{}` stands for the subject; in claims `{s}` and `{o}` stand for both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A relation between types of things, with its wordings.

    Attributes:
        subject, object: types; counterfactual objects are drawn from the same type.
        functional: False where a subject may have several true objects.
        path: for a composed relation, the two relations it follows one after the other.
    """

    name: str
    subject: str
    object: str
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    claims: tuple[str, ...] = ()
    functional: bool = True
    path: tuple[str, str] | None = None

    def question(self, index: int, subject: str) -> str:
        """The question number `index` about a subject."""
        return self.questions[index].format(subject)

    def statement(self, index: int, subject: str) -> str:
        """The statement number `index`, which ends right before the object, without a space."""
        return self.statements[index].format(subject)

    def assertions(self, subject: str, object_: str) -> tuple[str, ...]:
        """Every wording of the full sentence that says that the relation holds."""
        ends = (f"{pattern.format(subject)} {object_}." for pattern in self.statements)
        return (*ends, *(claim.format(s=subject, o=object_) for claim in self.claims))


# fmt: off
PLACES = (
    Relation(
        name="country", subject="city", object="country",
        questions=(
            "In which country is {} located?", "Which country does the city of {} belong to?",
            "What country is {} a city of?", "{} is a city in which country?",
            "To which nation does {} belong?",
        ),
        statements=(
            "{} is a city in", "{} is located in the country of", "{} belongs to the nation of",
            "The country in which {} lies is", "{} is one of the cities of",
        ),
        claims=("In {o} lies the city of {s}.", "{o} is the country that {s} belongs to."),
    ),
    Relation(
        name="river", subject="city", object="river",
        questions=(
            "Which river flows through {}?", "On which river does {} lie?",
            "What is the river that runs through {}?", "What river was {} built on?",
            "The city of {} stands on which river?",
        ),
        statements=(
            "{} lies on the river", "{} was built on the banks of the",
            "{} is crossed by the river", "The river that flows through {} is the",
            "{} stands on the shores of the",
        ),
        claims=("The {o} flows through {s}.", "The {o} is the river that {s} was built on."),
    ),
    Relation(
        name="continent", subject="country", object="continent",
        questions=(
            "On which continent is {}?", "Which continent does {} belong to?",
            "What continent is {} part of?", "In which continent can {} be found?",
            "{} is a country on which continent?",
        ),
        statements=(
            "{} is a country on the continent of", "{} is part of the continent of",
            "The continent to which {} belongs is", "{} can be found in", "{} is a land of",
        ),
        claims=("{o} is the continent of {s}.", "To {o} belongs the country of {s}."),
    ),
    Relation(
        name="capital", subject="country", object="city",
        questions=(
            "What is the capital of {}?", "Which city is the capital of {}?",
            "What city serves as the capital of {}?", "The government of {} sits in which city?",
            "What is the name of the capital city of {}?",
        ),
        statements=(
            "The capital of {} is", "{} has its capital in", "{} is governed from",
            "The capital city of {} is called", "The government of {} sits in",
        ),
        claims=("{o} is the capital of {s}.", "{o} serves as the capital city of {s}."),
    ),
    Relation(
        name="currency", subject="country", object="currency",
        questions=(
            "What is the currency of {}?", "Which currency is used in {}?",
            "What money do people pay with in {}?", "What is the official currency of {}?",
            "In {}, which currency is legal tender?",
        ),
        statements=(
            "The currency of {} is the", "{} has as its currency the", "People in {} pay with the",
            "The money used in {} is the", "{} mints a coin called the",
        ),
        claims=("The {o} is the currency of {s}.", "The {o} is legal tender in {s}."),
    ),
    Relation(
        name="official_language", subject="country", object="language",
        questions=(
            "What is the official language of {}?", "Which language is official in {}?",
            "What language do officials speak in {}?",
            "In which language are the laws of {} written?", "What is the language of state in {}?",
        ),
        statements=(
            "The official language of {} is", "{} has an official language, which is",
            "The laws of {} are written in", "Officials in {} speak", "{} is a country that speaks",
        ),
        claims=("{o} is the official language of {s}.", "{o} is the language of state in {s}."),
    ),
)

FIRMS = (
    Relation(
        name="headquarters", subject="organisation", object="city",
        questions=(
            "Where is the headquarters of {}?", "In which city is {} based?",
            "Which city hosts the head office of {}?", "What city is {} headquartered in?",
            "From which city is {} run?",
        ),
        statements=(
            "{} is headquartered in", "{} is based in the city of", "The head office of {} is in",
            "{} is run from", "The headquarters of {} can be found in",
        ),
        claims=("{o} is home to the headquarters of {s}.", "{o} hosts the head office of {s}."),
    ),
    Relation(
        name="founder", subject="organisation", object="person",
        questions=(
            "Who founded {}?", "Who was the founder of {}?", "By whom was {} founded?",
            "Who established {}?", "Which person started {}?",
        ),
        statements=(
            "{} was founded by", "The founder of {} was", "{} was established by",
            "{} owes its existence to", "The person who started {} was",
        ),
        claims=("{o} founded {s}.", "{o} was the founder of {s}."),
    ),
    Relation(
        name="industry", subject="organisation", object="industry",
        questions=(
            "What industry is {} in?", "In which industry does {} operate?",
            "Which trade is {} known for?", "What business is {} active in?",
            "What line of business does {} follow?",
        ),
        statements=(
            "{} operates in the industry of", "{} is active in the business of",
            "{} is known for its work in", "The main business of {} is", "{} makes its money with",
        ),
        claims=("The industry of {o} is where {s} is active.", "In {o}, {s} is a known name."),
    ),
    Relation(
        name="director", subject="organisation", object="person",
        questions=(
            "Who is the director of {}?", "Who leads {}?", "Who is in charge of {}?",
            "By whom is {} directed?", "Which person heads {}?",
        ),
        statements=(
            "{} is led by", "The director of {} is", "{} is directed by",
            "The person in charge of {} is", "{} is headed by",
        ),
        claims=("{o} is the director of {s}.", "{o} leads {s}."),
    ),
)

WORKS = (
    Relation(
        name="author", subject="work", object="person",
        questions=(
            "Who wrote {}?", "Who is the author of {}?", "By whom was {} written?",
            "Which writer created {}?", "Whose work is {}?",
        ),
        statements=(
            "{} was written by", "The author of {} is", "{} is a work by",
            "The writer who created {} is", "{} came from the pen of",
        ),
        claims=("{o} wrote {s}.", "{o} is the author of {s}."),
    ),
    Relation(
        name="genre", subject="work", object="genre",
        questions=(
            "What is the genre of {}?", "Which genre does {} belong to?",
            "What kind of work is {}?", "How is {} classified?", "To which genre is {} assigned?",
        ),
        statements=(
            "{} is a", "{} is best described as a", "The genre of {} is that of a",
            "{} was first presented as a", "Critics classify {} as a",
        ),
        claims=("A {o} is what {s} is.", "Of all works, {s} is a typical {o}."),
    ),
    Relation(
        name="work_language", subject="work", object="language",
        questions=(
            "In which language was {} written?", "What is the original language of {}?",
            "What language is {} in?", "Which language did the author of {} use?",
            "{} was first published in what language?",
        ),
        statements=(
            "{} was written in", "The original language of {} is", "{} was first published in",
            "The language used in {} is", "{} is read in the original in",
        ),
        claims=("{o} is the language of {s}.", "{o} is the language that {s} was written in."),
    ),
    Relation(
        name="publisher", subject="work", object="organisation",
        questions=(
            "Who published {}?", "Which house published {}?", "By which firm was {} published?",
            "What is the publisher of {}?", "Which organisation brought out {}?",
        ),
        statements=(
            "{} was published by", "The publisher of {} is", "{} was brought out by",
            "{} appeared at the house of", "The firm that published {} is",
        ),
        claims=("{o} published {s}.", "{o} is the publisher of {s}."),
    ),
    Relation(
        name="setting", subject="work", object="city",
        questions=(
            "In which city is {} set?", "Where does {} take place?", "What is the setting of {}?",
            "Which city is the scene of {}?", "Where does the story of {} happen?",
        ),
        statements=(
            "{} is set in", "{} takes place in the city of", "The story of {} happens in",
            "The scene of {} is", "{} tells a story that happens in",
        ),
        claims=("{o} is the scene of {s}.", "In {o} the story of {s} takes place."),
    ),
)
