"""The main job, played: a real model goes round the whole loop on the flights of 2013."""
