"""Do heat maps point at what is abnormal? The pointing game on synthetic radiographs.

`make_mura` records where each finding is drawn. A ResNet18 from random weights is trained on 500
patients (wrist and elbow, 128 px); on abnormal images of other patients that show their finding and
that it calls abnormal, the peak of the map is a hit where it lies in the finding's box. Chance is a
peak placed at random inside the body. Beside it, the same network before training: a map that does as
well there explains nothing (Adebayo et al., 2018). Asked of the trained one: three times chance.
"""

import tempfile

import numpy as np
import pandas as pd

from murakit import MuraClassifier, evaluate, load_mura, make_mura
from murakit.inspection import grad_cam, pointing_game

from ._work import SEED


def run(quick):
    n_patients, size, epochs = (40, 32, 1) if quick else (500, 128, 14)
    with tempfile.TemporaryDirectory() as folder:
        root = make_mura(
            f"{folder}/MURA-v1.1",
            n_patients=n_patients,
            regions=["wrist", "elbow"],
            image_size=2 * size,
            valid_fraction=0.3,
            record_findings=True,
            random_state=SEED,
        )
        train, valid = load_mura(root), load_mura(root, subset="valid")
        findings = pd.read_csv(root / "findings.csv")
        shared = {
            "weights": None,
            "unfreeze": "all",
            "backbone_lr_factor": 1.0,
            "image_size": size,
            "random_state": SEED,
        }
        clf = MuraClassifier(max_epochs=epochs, **shared).fit(train.data, train.target)
        untrained = MuraClassifier(max_epochs=1, early_stopping=False, lr=1e-9, **shared)
        untrained.fit(train.data[:32], train.target[:32])
        auroc = evaluate(clf, valid.data, valid.target).get("auroc")
        shown = {"/".join(path.split("/")[-5:]) for path in findings.path}
        called = clf.predict_proba(valid.data)[:, 1] > (0 if quick else 0.5)
        seen = np.array(["/".join(path.split("/")[-5:]) in shown for path in valid.data]) & called
        rows = []
        ways = [("trained", clf, "gradcam", None), ("trained", clf, "gradcam", "layer4")]
        ways += [("trained", clf, "occlusion", None), ("untrained", untrained, "gradcam", None)]
        for name, model, method, stage in ways:
            found = pointing_game(grad_cam(model, valid.data[seen], method=method, stage=stage), findings)
            asked = name == "trained" and method == "gradcam" and stage is None
            rows.append(
                {
                    "what": f"{name}, {method}" + (f" of {stage}" if stage else ""),
                    "images": found["n"],
                    "hits": f"{found['hits']:.1%}",
                    "chance": f"{found['chance']:.1%}",
                    "ratio": f"{found['ratio']:.1f}",
                    "asked": "≥ 3" if asked else "",
                    "ok": quick or bool(found["ratio"] >= 3) if asked else None,
                }
            )
    rows.append({"what": f"AUROC per study on unseen patients {auroc}; {epochs} epochs, seed {SEED}"})
    return rows
