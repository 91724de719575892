"""Intervals of AUROC and kappa: how often the patient bootstrap holds the truth, and the one over images.

2,000 simulated data sets of 300 patients (40 % abnormal), with one to four studies of one to four images;
a patient's studies share a part of their score and mostly their label, a study's images share another
part. The truth is what 200,000 patients of the same kind give. Each 95 % interval is made from 1,000
resamples: of patients and studies, as `evaluate` does, and of images taken one by one. Asked: the
first holds the truth in 93–97 %, the second visibly less often.
"""

import numpy as np

from murakit import evaluate_predictions

N_PATIENTS = 300
N_RESAMPLES = 1000


def run(quick):
    n_sets, n_truth = (40, 20_000) if quick else (2000, 200_000)
    truth = {
        level: evaluate_predictions(**draw(n_truth, np.random.default_rng(0)), level=level, n_resamples=0)
        for level in ("study", "image")
    }
    inside = {}
    for number in range(n_sets):
        data = draw(N_PATIENTS, np.random.default_rng([1, number]))
        settings = {"n_resamples": N_RESAMPLES, "random_state": number}
        by_patient = evaluate_predictions(**data, **settings)
        each_alone = {**data, "patients": np.arange(len(data["y"])), "studies": None}
        by_image = evaluate_predictions(**each_alone, level="image", **settings)
        for way, evaluation in (("patients", by_patient), ("images", by_image)):
            for metric in ("auroc", "kappa"):
                found = evaluation.get(metric)
                true = truth["study" if way == "patients" else "image"].get(metric).value
                counts = inside.setdefault((way, metric), [0, 0.0])
                counts[0] += found.low <= true <= found.high
                counts[1] += found.high - found.low
    rows = []
    for (way, metric), (hits, width) in inside.items():
        share = hits / n_sets
        fine = 0.93 <= share <= 0.97 if way == "patients" else share < 0.9
        rows.append(
            {
                "what": f"{metric}, resampling {way}",
                "holds the truth": f"{share:.1%}",
                "mean width": f"{width / n_sets:.3f}",
                "truth": f"{truth['study' if way == 'patients' else 'image'].get(metric).value:.4f}",
                "asked": "93–97 %" if way == "patients" else "less",
                "ok": quick or bool(fine),
            }
        )
    rows.append({"what": f"{n_sets} data sets of {N_PATIENTS} patients, {N_RESAMPLES:,} resamples each"})
    return rows


def draw(n_patients, rng):
    """Draw labels and probabilities of images with their studies and patients."""
    studies = rng.choice([1, 2, 3, 4], p=[0.4, 0.3, 0.2, 0.1], size=n_patients)
    ill = rng.random(n_patients) < 0.4
    patient = np.repeat(np.arange(n_patients), studies)
    # Of a patient's studies, some are as the patient is, some are not.
    label = np.where(rng.random(len(patient)) < 0.8, ill[patient], rng.random(len(patient)) < 0.4)
    images = rng.choice([1, 2, 3, 4], p=[0.1, 0.3, 0.5, 0.1], size=len(patient))
    study = np.repeat(np.arange(len(patient)), images)
    score = (
        1.2 * label[study]
        - 0.6
        + 0.7 * rng.normal(size=n_patients)[patient][study]
        + 0.5 * rng.normal(size=len(patient))[study]
        + 0.5 * rng.normal(size=len(study))
    )
    return {
        "y": label[study].astype(int),
        "proba": 1 / (1 + np.exp(-2 * score)),
        "patients": patient[study],
        "studies": study,
    }
