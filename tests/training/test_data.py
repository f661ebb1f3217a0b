# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Any data set under our column names; what does not fit or cannot be read is named."""

import numpy as np
import pytest
import soundfile
import yaml
from datasets import Audio, Dataset
from sine_recipe import ROOT

from freeze_omni_hf.training.data import (
    ColumnError,
    DataError,
    DataSpec,
    RowReport,
    decode_row,
    decoded_rows,
    load_rows,
)
from freeze_omni_hf.training.shards import encode_flac


SPECS = yaml.safe_load((ROOT / "training" / "data" / "specs.yaml").read_text())


def tone(seconds=0.5):
    return (0.3 * np.sin(2 * np.pi * 300 * np.arange(int(16000 * seconds)) / 16000)).astype(np.float32)


def flac(seconds=0.5):
    return {"bytes": encode_flac(tone(seconds)), "path": "there/not.flac"}


def spec_of(name, path, **changes):
    return {**SPECS[name], "path": str(path), "streaming": False, **changes}


def write_parquet(folder, rows, name="train-00000-of-00001"):
    folder.mkdir(exist_ok=True)
    Dataset.from_list(rows).to_parquet(folder / f"{name}.parquet")
    return folder


def test_all_example_specs_are_understood():
    for name, settings in SPECS.items():
        assert DataSpec.from_dict(settings).path, name


@pytest.mark.parametrize("streaming", [False, True])
def test_librispeech_columns(tmp_path, streaming):
    rows = [
        {"file": "f", "audio": flac(), "text": "HELLO THERE", "speaker_id": 84, "chapter_id": 1, "id": f"84-1-{i}"}
        for i in range(3)
    ]
    folder = write_parquet(tmp_path / "libri", rows, "train.100-00000-of-00001")
    loaded = load_rows(spec_of("librispeech", folder, streaming=streaming, limit=2))
    found = list(loaded)
    assert len(found) == 2
    assert set(found[0]) == {"id", "audio", "text", "language", "speaker"}
    assert {**found[1], "audio": 0} == {
        "id": "84-1-1", "audio": 0, "text": "hello there", "language": "en", "speaker": "84"
    }  # fmt: skip
    np.testing.assert_allclose(decode_row(found[0]), tone(), atol=1e-4)


def test_librispeech_folder(tmp_path):
    chapter = tmp_path / "84" / "121"
    chapter.mkdir(parents=True)
    for index in range(2):
        soundfile.write(chapter / f"84-121-000{index}.flac", tone(), 16000)
    (chapter / "84-121.trans.txt").write_text("84-121-0000 GO ON\n84-121-0001 I SEE\n84-121-0002 NO AUDIO\n")
    rows = load_rows(spec_of("librispeech_folder", tmp_path))
    assert rows["text"][:] == ["go on", "i see"] and rows["speaker"][:] == ["84", "84"]
    assert len(decode_row(rows[1])) == 8000


def test_aishell_folder_and_table(tmp_path):
    (tmp_path / "wav/train/S0002").mkdir(parents=True)
    (tmp_path / "transcript").mkdir()
    soundfile.write(tmp_path / "wav/train/S0002/BAC009S0002W0122.wav", tone(), 16000)
    (tmp_path / "transcript/aishell_transcript_v0.8.txt").write_text("BAC009S0002W0122 而 对 楼市\n", encoding="utf-8")
    row = load_rows(spec_of("aishell", tmp_path))[0]
    assert (row["text"], row["language"], row["speaker"]) == ("而对楼市", "zh", "S0002")
    assert len(decode_row(row)) == 8000
    table = write_parquet(tmp_path / "table", [{"wav": flac(), "sentence": "你 好", "spk_id": 2, "gender": "f"}])
    row = load_rows(spec_of("aishell_table", table))[0]
    assert (row["text"], row["speaker"], row["id"]) == ("你好", "2", "table/train/0")


@pytest.mark.parametrize("streaming", [False, True])
def test_spoken_questions(tmp_path, streaming):
    row = {"split_name": "a", "index": 5, "round": 1, "question": "Who?", "question_audio": flac(), "answer": "Me.",
           "answer_snac": "1 2"}  # fmt: skip
    folder = write_parquet(tmp_path / "qa", [row])
    row = next(iter(load_rows(spec_of("voice_assistant", folder, streaming=streaming))))
    assert (row["id"], row["text"], row["language"]) == ("5", "Who?", "en")
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][2]["content"][0]["text"] == "Me." and "answer" not in row
    assert row["messages"][1]["content"][0]["type"] == "audio"
    assert len(decode_row(row)) == 8000


def test_manifests_audio_folder_and_saved_data(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    (tmp_path / "train.jsonl").write_text('{"audio": "a.wav", "text": "one"}\n{"audio": "b.wav", "text": "two"}\n')
    (tmp_path / "dev.csv").write_text("audio,text\na.wav,three\n")
    rows = load_rows({"path": str(tmp_path)})
    assert len(decode_row(rows[0])) == 8000
    assert len(decode_row(next(iter(load_rows({"path": str(tmp_path), "streaming": True}))))) == 8000
    with pytest.raises(DataError, match=r"train/1: .*b.wav"):
        decode_row(rows[1])
    assert load_rows({"path": str(tmp_path / "dev.csv")})[0]["text"] == "three"
    folder = tmp_path / "folder"
    folder.mkdir()
    soundfile.write(folder / "c.wav", tone(), 16000)
    (folder / "metadata.csv").write_text("file_name,transcription\nc.wav,four\n")
    row = load_rows({"path": str(folder), "columns": {"text": "transcription"}})[0]
    assert row["text"] == "four" and len(decode_row(row)) == 8000
    Dataset.from_list([{"audio": flac(), "text": "five"}]).save_to_disk(tmp_path / "saved")
    assert load_rows({"path": str(tmp_path / "saved")})[0]["text"] == "five"
    stream = load_rows({"path": str(tmp_path / "saved"), "streaming": True})
    assert len(decode_row(next(iter(stream)))) == 8000
    both = load_rows([{"path": str(tmp_path / "saved")}, {"path": str(tmp_path / "dev.csv")}])
    assert both["text"][:] == ["five", "three"]


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_of_the_type_audio_never_need_torchcodec(tmp_path, streaming):
    rows = Dataset.from_list([{"audio": flac(), "text": "A B", "n": 1}]).cast_column(
        "audio", Audio(sampling_rate=16000)
    )
    (tmp_path / "d").mkdir()
    rows.to_parquet(tmp_path / "d" / "train-0.parquet")
    spec = {"path": str(tmp_path / "d"), "streaming": streaming, "case": "lower", "constants": {"language": "en"}}
    loaded = load_rows(spec)
    assert set(loaded.column_names) == {"id", "audio", "text", "language", "speaker"}
    row = next(iter(loaded))
    assert row["text"] == "a b" and len(decode_row(row)) == 8000
    assert len(list(load_rows([spec, spec]))) == 2


def test_wrong_column_maps_are_explained(tmp_path):
    folder = write_parquet(tmp_path / "d", [{"sound": flac(), "sentence": "a", "speaker": "s"}])
    with pytest.raises(
        ColumnError, match="no column 'audio', 'text', which asr needs.*sentence, sound, speaker.*audio: NAME"
    ):
        load_rows({"path": str(folder)})
    with pytest.raises(ColumnError, match="no column 'wav', which its map names.*sentence, sound, speaker"):
        load_rows({"path": str(folder), "columns": {"audio": "wav", "text": "sentence"}})
    with pytest.raises(ColumnError, match="gives sentence, which asr does not use.*our name: name in the data"):
        load_rows({"path": str(folder), "columns": {"audio": "sound", "sentence": "text"}})
    with pytest.raises(ColumnError, match="gives speaker and text the one column 'sentence'"):
        load_rows({"path": str(folder), "columns": {"audio": "sound", "text": "sentence", "speaker": "sentence"}})
    with pytest.raises(ColumnError, match="'messages', which qa needs"):
        load_rows({"path": str(folder), "task": "qa", "columns": {"audio": "sound"}})
    good = load_rows({"path": str(folder), "columns": {"audio": "sound", "text": "sentence"}})
    assert good[0]["speaker"] == "s"


def test_missing_and_damaged_data_is_explained(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_rows({"path": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match="no setting colums"):
        load_rows({"path": "x", "colums": {}})
    with pytest.raises(DataError, match="'vision' is not known"):
        load_rows({"path": "x", "task": "vision"})
    folder = write_parquet(tmp_path / "d", [{"audio": flac(), "text": "a"}])
    with pytest.raises(DataError, match="no data of the split 'test'.*train-00000"):
        load_rows({"path": str(folder), "split": "test"})
    file = folder / "train-00001.parquet"
    file.write_bytes((folder / "train-00000-of-00001.parquet").read_bytes()[:-100])
    with pytest.raises(DataError, match="train-00001.parquet is damaged.*again"):
        load_rows({"path": str(folder)})
    with pytest.raises(DataError, match="both|needs `audio_files`"):
        load_rows({"path": str(folder), "audio_files": "*.wav"})
    with pytest.raises(DataError, match="somebody/nothing.*cannot be loaded.*network"):
        load_rows({"path": "somebody/nothing"})


def test_broken_rows_are_reported_and_left_out(tmp_path):
    rows = [
        {"id": "good", "audio": flac(), "text": "a"},
        {"id": "noise", "audio": {"bytes": b"no audio at all", "path": None}, "text": "a"},
        {"id": "half", "audio": {"bytes": flac()["bytes"][:60], "path": None}, "text": "a"},
        {"id": "gone", "audio": {"bytes": None, "path": str(tmp_path / "gone.wav")}, "text": "a"},
        {"id": "none", "audio": None, "text": "a"},
        {"id": "empty", "audio": {"bytes": encode_flac(np.zeros(0)), "path": None}, "text": "a"},
        {"id": "long", "audio": flac(3.0), "text": "a"},
        {"id": "short", "audio": flac(0.05), "text": "a"},
        {"id": "wordless", "audio": flac(), "text": " "},
        {"id": "also good", "audio": flac(), "text": "b"},
    ]
    loaded = load_rows({"path": str(write_parquet(tmp_path / "d", rows))})
    report = RowReport()
    for _ in range(2):  # two epochs
        good = [row["id"] for row, samples in decoded_rows(loaded, report, max_seconds=2.0)]
    assert good == ["good", "also good"]
    assert report.used == 4 and set(report.skipped) == {row["id"] for row in rows} - set(good)
    assert "longer than 2.0 s" in report.skipped["long"] and "empty" in report.skipped["wordless"]
    assert "gone.wav" in report.skipped["gone"]
    text = str(report)
    assert text.startswith("4 rows, 8 skipped:") and "  none: there is no audio" in text
    other = RowReport()
    other.skip("elsewhere", "bad")
    report.merge(other)
    assert "elsewhere" in report.skipped
    with pytest.raises(DataError, match="Row noise: "):
        decode_row(loaded[1])
