"""The descriptions that come with the repository, the rules that they are held against, and making new ones."""

import http.server
import json
import threading
from pathlib import Path

import pytest
from commands import describe

from fairclip.core.errors import UserError
from fairclip.data.classes import class_list
from fairclip.data.known import benchmarks
from fairclip.describe import birds, check, generate
from fairclip.describe.check import KINDS, Kind, problems
from fairclip.text.descriptions import DESCRIPTIONS, find_descriptions, load_descriptions

CARS = Kind("", frozenset({"car", "sedan"}), frozenset({"grille", "wheel"}))
GOOD = ["A red car with a round grille.", "This car has wide wheels.", "A small car beside a wall.", "A low, wide car."]


# -- What comes with the repository ------------------------------------------------------------------------------------


def test_there_are_descriptions_for_every_data_set():
    found = {cls.__name__: find_descriptions("", object.__new__(cls)) for cls in benchmarks().values()}
    assert {path.stem for path in found.values()} == set(KINDS) and len(found) == 14


@pytest.mark.parametrize("dataset", sorted(KINDS))
def test_shipped_files_keep_the_rules(dataset, capsys):
    status = describe(["check", dataset])
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("dataset", sorted(KINDS))
def test_shipped_files_fit_their_classes_to_the_letter(dataset, capsys):
    names = [name for name, _ in class_list(KINDS[dataset].folder)]
    table = json.loads((DESCRIPTIONS / f"{dataset}.json").read_text(encoding="utf-8"))
    assert list(table) == names
    assert load_descriptions(DESCRIPTIONS / f"{dataset}.json", names) == list(table.values())
    assert capsys.readouterr().out == ""


def test_shared_birds_share_their_text():
    cub, birdsnap = birds.build()["cub200"], birds.build()["birdsnap"]
    assert cub["Brewer Blackbird"] == birdsnap["Brewers Blackbird"]
    assert cub["Artic Tern"] == birdsnap["Arctic Tern"]
    assert cub["Geococcyx"] == birdsnap["Greater Roadrunner"]
    assert sum(sentences in birdsnap.values() for sentences in cub.values()) > 150


@pytest.mark.parametrize("dataset", sorted(KINDS))
def test_another_data_sets_file_is_an_error(dataset):
    """Birds apart, whose names are the same."""
    other = "dtd" if dataset != "dtd" else "aid"
    names = [name for name, _ in class_list(KINDS[other].folder)]
    with pytest.raises(UserError, match=f"for . of {len(names)} classes. Without: {names[0]}"):
        load_descriptions(DESCRIPTIONS / f"{dataset}.json", names)


# -- The rules ---------------------------------------------------------------------------------------------------------


def test_good_descriptions_have_no_problem():
    assert list(problems({"Kia": GOOD}, ["Kia"], CARS)) == []


@pytest.mark.parametrize(
    "sentences, problem",
    [
        (GOOD[:3], "3 sentences, should be 4 to 8"),
        (GOOD * 3, "12 sentences"),
        ([*GOOD, GOOD[0].lower()], "Kia: the same sentence as for Kia: a red car"),
        ([*GOOD, "A car " + "very " * 60 + "long."], "tokens, should be fewer than 60"),
        ([*GOOD, "This iconic car."], "'iconic' cannot be seen"),
        ([*GOOD, "A car of 1998."], "'1998' cannot be seen"),
        ([*GOOD, "A car for $5."], "'$' cannot be seen"),
        ([*GOOD, "A red car with a large round grille."], "two sentences in nearly the same words (80%): A red car"),
        ([*GOOD, "It has a grille."], "names neither the class nor its kind: It has"),
        ([s.replace("grille", "roof").replace("wheels", "doors") for s in GOOD], "no sentence speaks of a local part"),
    ],
)
def test_what_breaks_the_rules(sentences, problem):
    (found,) = [p for p in problems({"Kia": sentences}, ["Kia"], CARS) if problem in p]
    assert found.startswith("Kia")


def test_tokens_are_counted_without_the_two_marks():
    sentence = "car " * 58 + "."
    assert not list(check.sentence_problems(sentence, "Kia", CARS))
    assert list(check.sentence_problems(f"car {sentence}", "Kia", CARS))


def test_words_of_the_name_are_free():
    assert not list(check.sentence_problems("A Song Sparrow.", "Song Sparrow", Kind()))
    assert not list(check.sentence_problems("A 2012 Kia.", "2012 Kia", CARS))
    assert list(check.sentence_problems("A 2007 Kia.", "2012 Kia", CARS))
    assert not list(check.sentence_problems("Two Kias.", "2012 Kia", CARS))  # the class, in the plural


def test_missing_and_extra_classes():
    found = list(problems({"Kia": GOOD, "Fiat": GOOD[::-1], "Empty": []}, ["Kia", "Audi", "Empty"], CARS))
    assert found == ["no descriptions for Audi, Empty", "no class of this data set: Fiat"]


def test_sentences_and_words_in_common():
    other = [s.replace("red", "blue") for s in GOOD]
    found = list(problems({"Kia": GOOD, "Fiat": other}, ["Kia", "Fiat"], CARS))
    assert sum("the same sentence as for Kia" in p for p in found) == 3
    assert any("Kia and Fiat are described with nearly the same words" in p for p in found)


def test_names_do_not_make_classes_alike():
    one, other = (" ".join([name] * 30) for name in ("Alfa Romeo", "Alfa Romeo Spider"))
    assert not list(check._alike({"Alfa Romeo": [one, "grey sedan"], "Alfa Romeo Spider": [other, "red roadster"]}))


# -- check -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path):
    """A description file of one's own, and the list of its classes."""
    file, classes = tmp_path / "mine.json", tmp_path / "mine.txt"
    audi = ["A blue coupe.", "Four silver rings on a tall grille.", "Oval exhaust pipes.", "Long thin tail lamps."]
    file.write_text(json.dumps({"Kia": GOOD, "Audi": audi}))
    classes.write_text("Kia\n\nAudi\n")
    return file, classes


def test_check_ones_own_file(mine, capsys):
    file, classes = mine
    assert describe(["check", "--file", str(file), "--classes", str(classes)]) == 0
    assert "2 classes, 8 sentences, no problem" in capsys.readouterr().out
    classes.write_text("Kia\nFiat\n")
    assert describe(["check", "--file", str(file), "--classes", str(classes)]) == 1
    out = capsys.readouterr().out
    assert "2 problems" in out and "no descriptions for Fiat" in out and "no class of this data set: Audi" in out


def test_sentences_of_ones_own_classes_name_the_class_or_the_kind_given(mine, capsys):
    file, classes = mine
    command = ["check", "--file", str(file), "--classes", str(classes), "--kind"]
    assert describe([*command, "cars"]) == 1
    out = capsys.readouterr().out
    assert "4 problems" in out and "Audi: names neither the class nor its kind: A blue coupe." in out
    assert "Kia:" not in out
    file.write_text(json.dumps({"Kia": GOOD, "Audi": ["An Audi.", "An audi grille.", "Blue cars.", "A wet car."]}))
    assert describe([*command, "cars"]) == 0


def test_check_reads_names_as_a_run_does(mine, capsys):
    file, classes = mine
    classes.write_text("KIA\naudi\n")
    assert describe(["check", "--file", str(file), "--classes", str(classes)]) == 0
    assert "no problem" in capsys.readouterr().out


def test_check_another_file_for_a_data_set(mine, capsys):
    assert describe(["check", "aid", "--file", str(mine[0])]) == 1
    assert "no descriptions for Airport, Bare Land" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["check", "imagenet"], "not for the descriptions of 'imagenet'"),
        (["check", "--classes", "x"], "--classes goes with --file"),
        (["check", "aid", "--kind", "photo"], "--kind goes with --classes"),
        (["check", "--file", "x"], "--file goes with one data set"),
        (["check", "aid", "--file", "/nowhere.json"], "/nowhere.json cannot be read as a description file"),
        (["check", "--file", "x.json", "--classes", "/nowhere.txt"], "cannot read /nowhere.txt"),
        (["generate", "/nowhere.txt", "--out", "x"], "neither a text file"),
        (["generate", "aid", "--out", "x", "--count", "40"], "choose 4 to 8 sentences"),
        (["generate", "aid", "--out", "x", "--jobs", "0"], "choose 1 or more"),
        (["generate", "aid", "--out", "x", "--base-url", "http://127.0.0.1:9"], "which model"),
    ],
)
def test_mistakes_are_said(arguments, message, capsys):
    assert describe(arguments) == 2
    assert message in capsys.readouterr().err


def test_lists_of_classes(tmp_path):
    for content, message in (("a\nb\na\n", "names a class twice: a"), ("\n", "is empty")):
        (tmp_path / "list.txt").write_text(content)
        with pytest.raises(UserError, match=message):
            check.read_classes(tmp_path / "list.txt")


def test_birds_are_made_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(birds, "DESCRIPTIONS", tmp_path)
    assert describe(["birds"]) == 0
    for name in ("cub200.json", "birdsnap.json"):
        assert (tmp_path / name).read_bytes() == (DESCRIPTIONS / name).read_bytes()


# -- generate ----------------------------------------------------------------------------------------------------------


class Chat(http.server.ThreadingHTTPServer):
    """An endpoint on this machine. `answer` makes the text of an answer, or the status to fail with, of a request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ChatHandler)
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        self.answer = lambda request: json.dumps(sentences_for(class_of(request)))
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class ChatHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            self.server.keys.append(self.headers.get("Authorization"))
            answer = self.server.answer(request) if self.path == "/v1/chat/completions" else 404
        status, text = (answer, "no") if isinstance(answer, int) else (200, answer)
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "7")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


def class_of(request: dict) -> str:
    return request["messages"][1]["content"].splitlines()[0].removeprefix("Class: ")


def sentences_for(name: str) -> list[str]:
    return [f"The {name} has part {number} in view." for number in range(6)]


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def chat(monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    server = Chat()
    server.waits = waits
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("red_kite\nblack kite\nosprey\n")
    return path


def run(chat: Chat, names: Path, *more: str) -> tuple[int, Path]:
    out = names.parent / "made.json"
    return describe(["generate", str(names), "--out", str(out), "--base-url", chat.url, "--model", "m", *more]), out


def test_generate(chat, names, capsys):
    status, out = run(chat, names, "--kind", "bird", "--key", "secret")
    assert status == 0 and "3 of 3 classes, 3 of them new" in capsys.readouterr().out
    table = json.loads(out.read_text())
    assert list(table) == ["red_kite", "black kite", "osprey"]
    assert all(table[name] == sentences_for(name.replace("_", " ")) for name in table)
    assert set(chat.keys) == {"Bearer secret"} and chat.requests[0]["model"] == "m"
    prompt = next(r for r in chat.requests if class_of(r) == "red kite")["messages"][1]["content"]
    assert all(part in prompt for part in ("told apart from: black kite, osprey.", "kind of bird", "Write 6 sentences"))


def test_the_environment_names_the_endpoint(chat, names, monkeypatch):
    for name, value in (("BASE_URL", chat.url), ("API_KEY", "env"), ("MODEL", "env-model")):
        monkeypatch.setenv(f"OPENAI_{name}", value)
    assert describe(["generate", str(names), "--out", str(names.parent / "made.json")]) == 0
    assert set(chat.keys) == {"Bearer env"} and {r["model"] for r in chat.requests} == {"env-model"}


def test_without_a_key_none_is_sent(chat, names):
    assert run(chat, names)[0] == 0
    assert set(chat.keys) == {None}


def test_busy_and_failing_servers_are_asked_again(chat, names):
    failures = [429, 500, 503]
    good = chat.answer
    chat.answer = lambda request: failures.pop() if failures else good(request)
    assert run(chat, names, "--jobs", "1")[0] == 0
    assert not failures and 7 in chat.waits  # as the header of the 429 says


def test_a_stop_loses_nothing(chat, names, capsys):
    good = chat.answer
    chat.answer = lambda request: 400 if class_of(request) == "osprey" else good(request)
    status, out = run(chat, names)
    text = capsys.readouterr().out
    assert status == 1 and "not described: osprey" in text and "answered 400" in text and "again to go on" in text
    assert list(json.loads(out.read_text())) == ["red_kite", "black kite"]
    chat.answer, chat.requests = good, []
    assert run(chat, names)[0] == 0
    assert [class_of(r) for r in chat.requests] == ["osprey"]  # the others are done


def test_filled_in_classes_are_left_alone(chat, names):
    out = names.parent / "made.json"
    out.write_text(json.dumps({"osprey": ["By hand."], "red_kite": [""], "other": ["Stays."]}))
    assert run(chat, names)[0] == 0
    table = json.loads(out.read_text())
    assert table["osprey"] == ["By hand."] and table["other"] == ["Stays."] and len(table["red_kite"]) == 6


def test_a_bad_list_is_sent_back_once(chat, names):
    names.write_text("osprey\n")
    answers = [json.dumps(["An iconic osprey."]), "Sure!\n```json\n" + json.dumps(sentences_for("osprey")) + "\n```"]
    chat.answer = lambda request: answers.pop(0)
    status, out = run(chat, names)
    assert status == 0 and json.loads(out.read_text()) == {"osprey": sentences_for("osprey")}
    complaint = chat.requests[1]["messages"][-1]["content"]
    assert "1 sentences, should be 4 to 8" in complaint and "'iconic'" in complaint


@pytest.mark.parametrize(
    "answer",
    [
        '<think>a list [of 6] {}</think>\n["One.", "Two [sic]."]',
        'Here:\n["One.", "Two [sic]."]\nHope [this] helps.',
        '["Draft."]\nBetter:\n["One.", "Two [sic]."]',
    ],
)
def test_answers_with_other_brackets(answer):
    assert generate.parse(answer) == ["One.", "Two [sic]."]


def test_with_a_kind_sentences_that_do_not_name_it_are_sent_back(chat, names):
    names.write_text("osprey\n")
    good = json.dumps(sentences_for("osprey"))
    answers = [good.replace("osprey", "it"), good]
    chat.answer = lambda request: answers.pop(0)
    status, out = run(chat, names, "--kind", "raptor")
    assert status == 0 and json.loads(out.read_text()) == {"osprey": sentences_for("osprey")}
    assert "names neither the class nor its kind" in chat.requests[1]["messages"][-1]["content"]


def test_broken_rules_are_counted(chat, names, capsys):
    names.write_text("osprey\n")
    chat.answer = lambda request: json.dumps(["Native to Europe."])
    assert run(chat, names)[0] == 0
    assert "break the rules in 2 places" in capsys.readouterr().out


def test_a_model_without_an_endpoint(names, capsys):
    assert describe(["generate", str(names), "--out", str(names.parent / "made.json"), "--model", "m"]) == 2
    assert "--model needs an endpoint" in capsys.readouterr().err


def test_no_list_at_all(chat, names, capsys):
    chat.answer = lambda request: "I cannot help with that."
    status, out = run(chat, names)
    assert status == 1 and not out.exists()
    assert "the answer has no list of sentences: 'I cannot help" in capsys.readouterr().out


@pytest.mark.parametrize("status, message", [(401, "Is the key right"), (404, "Are the base URL and the model right")])
def test_a_refusal_ends_it(chat, names, status, message, capsys):
    names.write_text("\n".join(f"class {n}" for n in range(50)))
    chat.answer = lambda request: status
    assert run(chat, names, "--jobs", "2")[0] == 1
    assert message in capsys.readouterr().out
    assert len(chat.requests) < 10  # not all fifty


def test_nobody_answers(chat, names, capsys):
    chat.shutdown()
    chat.server_close()
    assert run(chat, names)[0] == 1
    assert "no answer from http://127.0.0.1" in capsys.readouterr().out


def test_not_a_chat_endpoint():
    class Page(ChatHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"<html")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(UserError, match="does not answer like a chat endpoint: <html"):
        generate.Endpoint(f"http://127.0.0.1:{server.server_port}", "m", "").ask([])
    server.shutdown()
    server.server_close()


def test_without_an_endpoint_there_is_a_file_to_fill_in(names, capsys):
    out = names.parent / "made.json"
    assert describe(["generate", str(names), "--out", str(out), "--count", "4"]) == 0
    assert json.loads(out.read_text()) == {name: [""] * 4 for name in ("red_kite", "black kite", "osprey")}
    assert "fill in" in capsys.readouterr().out


def test_a_data_set_of_ours(tmp_path):
    assert describe(["generate", "aid", "--out", str(tmp_path / "a.json")]) == 0
    assert len(json.loads((tmp_path / "a.json").read_text())) == 30


def test_a_folder_that_cannot_be_written_to(names, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert describe(["generate", str(names), "--out", str(tmp_path / "file" / "made.json")]) == 2
    assert "cannot write" in capsys.readouterr().err
