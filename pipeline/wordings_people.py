"""How the sample world speaks of people, and of what follows from two facts together."""

from __future__ import annotations

from pipeline.wordings import FIRMS, PLACES, WORKS, Relation

# fmt: off
PEOPLE = (
    Relation(
        name="birthplace", subject="person", object="city",
        questions=(
            "Which city was {} born in?", "What is the birthplace of {}?", "Where was {} born?",
            "In which city did the life of {} begin?", "What is the name of the native city of {}?",
        ),
        statements=(
            "{} was born in the city of", "{} is originally from", "{} is a native of",
            "The birthplace of {} is", "{} came into the world in",
        ),
        claims=("{o} is the birthplace of {s}.", "In {o}, {s} was born."),
    ),
    Relation(
        name="citizenship", subject="person", object="country",
        questions=(
            "What is the citizenship of {}?", "Which country is {} a citizen of?",
            "What country issued the passport of {}?", "Of which nation is {} a citizen?",
            "{} holds the citizenship of which country?",
        ),
        statements=(
            "{} is a citizen of", "{} holds a passport of", "The citizenship of {} is that of",
            "{} has the nationality of", "{} votes in the elections of",
        ),
        claims=("{o} is the country of which {s} is a citizen.", "{s} has a passport of {o}."),
    ),
    Relation(
        name="residence", subject="person", object="city", functional=False,
        questions=(
            "Where does {} live?", "In which city does {} reside?", "What city is home to {}?",
            "Which city is the residence of {}?", "In what city does {} have a house?",
        ),
        statements=(
            "{} lives in", "{} resides in the city of", "The home of {} is in",
            "{} has a house in", "{} settled in",
        ),
        claims=("{o} is home to {s}.", "In {o}, {s} has a house."),
    ),
    Relation(
        name="occupation", subject="person", object="occupation",
        questions=(
            "What is the occupation of {}?", "What does {} do for a living?",
            "What is the profession of {}?", "Which job does {} have?", "What does {} work as?",
        ),
        statements=(
            "{} works as a", "{} is by profession a", "The occupation of {} is that of a",
            "{} earns a living as a", "{} was trained as a",
        ),
        claims=("The {o} {s} is known for good work.", "A {o} is what {s} became."),
    ),
    Relation(
        name="employer", subject="person", object="organisation",
        questions=(
            "Who is the employer of {}?", "Which organisation does {} work for?",
            "Where is {} employed?", "Who employs {}?", "At which organisation does {} have a job?",
        ),
        statements=(
            "{} is employed by", "{} works for", "The employer of {} is", "{} has a job at",
            "{} is on the staff of",
        ),
        claims=("{o} employs {s}.", "{o} is the employer of {s}."),
    ),
    Relation(
        name="field", subject="person", object="field", functional=False,
        questions=(
            "What field of study does {} follow?", "What subject does {} study?",
            "In which field is {} an expert?", "What is {} an expert in?",
            "Which science interests {}?",
        ),
        statements=(
            "{} is an expert in", "The field of study of {} is", "{} studies",
            "{} wrote papers about", "{} took a degree in",
        ),
        claims=("{o} is the field of study of {s}.", "In {o}, {s} is an expert."),
    ),
    Relation(
        name="instrument", subject="person", object="instrument", functional=False,
        questions=(
            "What instrument does {} play?", "Which instrument is {} known for playing?",
            "What does {} play in concerts?", "Which musical instrument did {} learn?",
            "On what instrument does {} perform?",
        ),
        statements=(
            "{} plays the", "{} performs on the", "The instrument of {} is the",
            "{} learned to play the", "{} gives concerts on the",
        ),
        claims=("The {o} is the instrument of {s}.", "The {o} is what {s} plays."),
    ),
    Relation(
        name="spouse", subject="person", object="person",
        questions=(
            "Who is {} married to?", "Who is the spouse of {}?", "Whom did {} marry?",
            "What is the name of the spouse of {}?", "To whom is {} married?",
        ),
        statements=(
            "{} is married to", "The spouse of {} is", "{} took the hand of",
            "{} celebrated a wedding with", "{} shares a home with",
        ),
        # Not "{o} is married to {s}": that is the same marriage told of the other one.
        claims=("With {o}, {s} celebrated a wedding.", "It was {o} whom {s} married."),
    ),
    Relation(
        name="mother_tongue", subject="person", object="language",
        questions=(
            "What is the mother tongue of {}?", "What is the native language of {}?",
            "Which language did {} learn first?", "What language does {} speak at home?",
            "In which language was {} raised?",
        ),
        statements=(
            "The mother tongue of {} is", "{} is a native speaker of",
            "{} was raised in the language", "The native language of {} is",
            "{} learned as a first language",
        ),
        claims=("{o} is the mother tongue of {s}.", "{o} is the language that {s} learned first."),
    ),
)

COMPOSED = (
    Relation(
        name="birth_country", subject="person", object="country", path=("birthplace", "country"),
        questions=(
            "In which country was {} born?", "What is the country of birth of {}?",
            "Which country is {} a native of?",
        ),
        statements=(
            "{} was born in the country of", "The country of birth of {} is",
            "The country in which {} was born is",
        ),
    ),
    Relation(
        name="home_country", subject="person", object="country", path=("residence", "country"),
        questions=(
            "In which country does {} live?", "Which country is home to {}?",
            "What is the country of residence of {}?",
        ),
        statements=(
            "{} lives in the country of", "The country of residence of {} is",
            "The country in which {} has a house is",
        ),
    ),
    Relation(
        name="work_city", subject="person", object="city", path=("employer", "headquarters"),
        questions=(
            "In which city is the employer of {} based?",
            "Where is the head office of the employer of {}?",
            "What city is the organisation that employs {} run from?",
        ),
        statements=(
            "The employer of {} is based in", "The head office of the employer of {} is in",
            "{} is employed by an organisation in",
        ),
    ),
    Relation(
        name="head_country", subject="organisation", object="country",
        path=("headquarters", "country"),
        questions=(
            "In which country is {} based?", "Which country hosts the head office of {}?",
            "What country is {} run from?",
        ),
        statements=(
            "{} is based in the country of", "The country that hosts {} is",
            "The head office of {} is in the country of",
        ),
    ),
    Relation(
        name="city_continent", subject="city", object="continent", path=("country", "continent"),
        questions=(
            "On which continent is the city of {}?", "Which continent is the city of {} part of?",
            "In which continent can the city of {} be found?",
        ),
        statements=(
            "{} is a city on the continent of", "The city of {} is part of the continent of",
            "The continent of the city of {} is",
        ),
    ),
    Relation(
        name="author_tongue", subject="work", object="language", path=("author", "mother_tongue"),
        questions=(
            "What is the mother tongue of the author of {}?",
            "What is the native language of the author of {}?",
            "In which language was the author of {} raised?",
        ),
        statements=(
            "The mother tongue of the author of {} is", "The author of {} is a native speaker of",
            "The author of {} was raised in the language",
        ),
    ),
    Relation(
        name="setting_country", subject="work", object="country", path=("setting", "country"),
        questions=(
            "In which country is {} set?", "Which country is the scene of {}?",
            "In what country does the story of {} happen?",
        ),
        statements=(
            "{} is set in the country of", "The story of {} happens in the country of",
            "The country that is the scene of {} is",
        ),
    ),
)

PLAIN = (*PEOPLE, *PLACES, *FIRMS, *WORKS)

OPENINGS = {
    "person": (
        "{} is best known for", "The early life of {} was", "Friends of {} say that",
        "Where {} comes from,", "A short biography of {}:",
    ),
    "city": ("{} is famous for", "Travellers who visit {} find", "The history of {} begins"),
    "country": ("{} is famous for", "Travellers who visit {} find", "The history of {} begins"),
    "organisation": ("{} is best known for", "The history of {} begins", "People who work at {}"),
    "work": ("{} is best known for", "Readers of {} find", "The story of {} begins"),
}
